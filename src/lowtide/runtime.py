"""What one process of one Celery app has of lowtide: settings and the parts, made on first use.

Light to import: an app that only sends batch tasks never loads the database, the provider's SDK
or the settings library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from celery import Celery, current_app
from celery.exceptions import OperationalError
from celery.utils.log import get_logger

from lowtide import failpoints, quiet
from lowtide.clock import Clock, SystemClock

if TYPE_CHECKING:
    from redis import Redis

    from lowtide.buffer import Buffer
    from lowtide.envelope import Earlier
    from lowtide.held import Where
    from lowtide.lane import Lane
    from lowtide.ledger import Ledger
    from lowtide.providers import Provider
    from lowtide.request import Request
    from lowtide.settings import Settings
    from lowtide.slices import Slices
    from lowtide.timers import Timers

logger = get_logger(__name__)
_ATTRIBUTE = "lowtide_runtime"
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://")
_DEFAULT_REDIS = "redis://localhost:6379/0"


def install(app: Celery) -> Runtime:
    """Gives `app` the pipeline's tasks and the ticking bootstep; once, however often it is called.

    Called when the first batch task is bound to the app, so that a user switches nothing on.
    """
    known = app.__dict__.get(_ATTRIBUTE)
    if known is not None:
        return cast("Runtime", known)
    from lowtide import early, heap, logs, pipeline, tracing

    runtime = Runtime(app)
    app.__dict__[_ATTRIBUTE] = runtime
    pipeline.register(app)
    logs.attach()
    tracing.attach()
    early.attach()
    heap.attach()
    # By name: what ticks needs Redis' client, which an app that only sends does not load yet.
    app.steps["consumer"].add("lowtide.bootstep:LowtideStep")
    return runtime


def of(app: Celery | None = None) -> Runtime:
    """The runtime of `app`, the current app by default."""
    return install(app or current_app._get_current_object())  # noqa: SLF001


class Runtime:
    """The parts of lowtide as one app's processes use them.

    Args:
        app: The Celery app. `app.conf.lowtide`, a dict of settings, goes before the environment.
        clock: Where time comes from.
    """

    def __init__(self, app: Celery, clock: Clock | None = None) -> None:
        self.app = app
        self.clock: Clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._providers: dict[tuple[int, str], Provider] = {}

    @cached_property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            SettingsError: One of them is unknown or cannot be used.
        """
        from lowtide import settings

        return settings.load(self.app.conf.get("lowtide"))

    @cached_property
    def redis_url(self) -> str:
        """URL of the buffers' Redis: the setting, or the app's broker or result backend."""
        candidates = (
            self.settings.redis_url,
            self.app.conf.broker_url,
            self.app.conf.result_backend,
        )
        for url in candidates:
            if isinstance(url, str) and url.startswith(_REDIS_SCHEMES):
                return url
        return _DEFAULT_REDIS

    @property
    def redis(self) -> Redis:
        """This process's connection to the buffers' Redis."""
        from lowtide.connect import connect

        return connect(self.redis_url)

    @property
    def buffer(self) -> Buffer:
        """The lanes' buffers."""
        from lowtide.buffer import Buffer

        return Buffer(self.redis, self.settings, self.clock)

    @property
    def timers(self) -> Timers:
        """What is due when."""
        from lowtide.timers import Timers

        return Timers(self.redis, self.settings)

    @property
    def slices(self) -> Slices:
        """Fetched answers on their way to the replica that delivers them."""
        from lowtide.slices import Slices

        return Slices(self.redis, self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, its tables brought to this release's form on first use."""
        from lowtide.ledger import Ledger

        with self._lock:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            ledger = Ledger(self.settings.ledger_url, self.clock)
            ledger.create()
            return ledger

    def provider(self, account: str) -> Provider:
        """The provider of `account`; one client per process.

        Raises:
            SettingsError: No account of that name is set.
        """
        from lowtide.providers import make_provider

        key = (os.getpid(), account)
        with self._lock:
            if key not in self._providers:
                self._providers[key] = make_provider(account, self.settings)
            return self._providers[key]

    @property
    def owner(self) -> str:
        """Who holds a lease: this machine, process and thread."""
        return f"{os.uname().nodename}:{os.getpid()}:{threading.get_ident()}"

    def accept(self, requests: Sequence[Request]) -> None:
        """Puts requests into their lanes' buffers; those already there are left as they are.

        Buffers that became full are sent on at once. A request whose like is on its way already
        waits for its line; see `sharing`.

        Raises:
            redis.RedisError: Redis cannot be reached; it is safe to call again.
        """
        from lowtide import sharing

        for batch_id in self.buffer.append(sharing.join(self, requests)).sealed:
            failpoints.reach("accept.sealed")
            self.kick("submit", batch_id)

    def kick(self, verb: str, subject: str, *args: Any) -> None:
        """Sends a pipeline task now; should its message be lost, the timer sends it again."""
        self.timers.arm(verb, subject, self.clock.now() + self.settings.lease)
        self.send(verb, subject, *args)

    def send(self, verb: str, *args: Any) -> None:
        """Sends a pipeline task whose timer is armed already."""
        try:
            self.app.tasks[f"lowtide.{verb}"].apply_async(args, retry=False)
        except OperationalError as error:
            quiet.warn(logger, "broker", "lowtide.%s waits: the broker refused it: %s", verb, error)

    def run_now(self, lane: Lane, body: dict[str, Any]) -> dict[str, Any]:
        """One request through the synchronous API, at full price.

        Returns:
            The response body.

        Raises:
            LowtideError: As the provider's failure was.
        """
        return self.provider(lane.account).run(lane.endpoint, body)

    def where(self, task_id: str) -> Where | None:
        """Where a task's request is now, None when lowtide holds none."""
        return self.buffer.where([task_id])[0]

    def earlier(self, task_id: str, runs: range) -> Earlier:
        """How the requests of a generator's earlier tries ended, but for the last one of each.

        A retry need not ask, and pay, again for what was answered before the step that failed.

        Args:
            task_id: The task.
            runs: Which runs of that id; see `ids.run_number`.
        """
        from lowtide.envelope import earlier
        from lowtide.ids import place

        rows = {place(row.custom_id): row.blob for row in self.ledger.task(task_id)}
        return earlier(rows[asked] for asked in sorted(rows) if asked[0] in runs)
