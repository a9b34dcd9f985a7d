"""Carries tables on in the background of the page, also after it was started again."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from lowtide.errors import LowtideError
from lowtide.runtime import Runtime
from lowtide.tables import Run, TableError, runs_in

logger = logging.getLogger(__name__)
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0


class Runner:
    """One thread for each run that is on its way; a lock keeps other processes off it.

    Args:
        rt: The runtime of the app that sends.
    """

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._lock = threading.Lock()
        self._going: dict[str, tuple[threading.Thread, threading.Event]] = {}

    @property
    def folder(self) -> Path:
        """Where the runs are kept."""
        return self._rt.settings.home / "runs"

    def go_on(self) -> None:
        """Carries on what was on its way when the page ended."""
        for run in runs_in(self.folder):
            progress = run.progress()
            run.close()
            if not progress.finished and not progress.stopped:
                self.start(run.id)

    def start(self, run_id: str) -> None:
        """Sends the run's rows, or goes on with it."""
        with self._lock:
            known = self._going.get(run_id)
            if known is not None and known[0].is_alive():
                return
            over = threading.Event()
            thread = threading.Thread(
                target=self._carry, args=(run_id, over), name=f"run-{run_id}", daemon=True
            )
            self._going[run_id] = (thread, over)
            thread.start()

    def halt(self, run_id: str) -> None:
        """Stops a run; what was sent is still answered."""
        with self._lock:
            known = self._going.pop(run_id, None)
        if known is not None:
            known[1].set()
            known[0].join(10)

    def stop(self) -> None:
        """Ends all threads; the next start carries on."""
        with self._lock:
            going = list(self._going.values())
            self._going.clear()
        for _, over in going:
            over.set()
        for thread, _ in going:
            thread.join(5)

    def _carry(self, run_id: str, over: threading.Event) -> None:
        wait = _FIRST_WAIT
        run = Run(self.folder / run_id)
        try:
            while not over.is_set():
                try:
                    run.go(self._rt.app, stop=over)
                    over.set()
                except TableError as error:
                    logger.info("%s", error)
                    over.set()
                except (OperationalError, RedisError, LowtideError, OSError) as error:
                    logger.warning("Run %s waits %.0f s: %s", run_id, wait, error)
                    over.wait(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
        except Exception:
            logger.exception("Run %s ended; start it again on its page", run_id)
        finally:
            run.close()
