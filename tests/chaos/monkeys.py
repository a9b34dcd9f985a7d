"""What breaks things: each action takes one part away, or holds it up, for a while."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from threading import Event

import psutil

from tests.chaos.deployment import LEASE, Deployment, Worker

# Longer than a lease and than the claims of a slice, so that another replica takes over.
PAUSE = LEASE * 2


class Monkeys:
    """Breaks a deployment, one action at a time; the same seed gives the same actions.

    Args:
        deployment: What to break.
        seed: Of the choice.
        over: Ends an action early.

    Attributes:
        done: How often each action was taken.
        kills: How many processes were killed, as far as they can be counted.
    """

    def __init__(self, deployment: Deployment, seed: int, over: Event) -> None:
        self._deployment = deployment
        self._random = random.Random(seed)
        self._over = over
        self.done: Counter[str] = Counter()
        self.kills = 0
        self._actions: dict[str, tuple[int, Callable[[], None]]] = {
            "pool process killed": (30, self._kill_child),
            "worker killed": (20, self._kill_worker),
            "worker told to stop": (5, self._stop_worker),
            "process paused for two leases": (10, self._pause),
            "Valkey stopped and started": (3, lambda: self._restart_valkey(kill=False)),
            "Valkey killed and started": (3, lambda: self._restart_valkey(kill=True)),
            "simulator killed and started": (5, self._restart_simulator),
            "Redis connections cut": (6, lambda: self._cut("redis")),
            "provider connections cut": (6, lambda: self._cut("provider")),
            "Redis out of reach": (4, lambda: self._refuse("redis")),
            "provider out of reach": (4, lambda: self._refuse("provider")),
            "Redis slow": (3, lambda: self._slow("redis")),
            "provider slow": (3, lambda: self._slow("provider")),
        }
        if "database" in deployment.proxies:
            self._actions |= {
                "database connections cut": (5, lambda: self._cut("database")),
                "database out of reach": (4, lambda: self._refuse("database")),
                "database crashed and started": (3, self._restart_database),
            }

    def act(self) -> str:
        """Takes one action, chosen at random; returns its name."""
        names = list(self._actions)
        weights = [self._actions[name][0] for name in names]
        chosen = self._random.choices(names, weights)[0]
        self._actions[chosen][1]()
        self.done[chosen] += 1
        return chosen

    def revive(self) -> None:
        """Starts the workers that ended."""
        for worker in self._deployment.workers:
            if not worker.alive:
                worker.start()

    def _worker(self) -> Worker:
        return self._random.choice(self._deployment.workers)

    def _kill_child(self) -> None:
        children = self._worker().children()
        if children:
            with contextlib.suppress(psutil.Error):
                self._random.choice(children).kill()
                self.kills += 1

    def _kill_worker(self) -> None:
        worker = self._worker()
        worker.kill()
        self.kills += 1
        worker.start()

    def _stop_worker(self) -> None:
        worker = self._worker()
        worker.stop()
        worker.start()

    def _pause(self) -> None:
        """A machine that stands still, and then goes on as if nothing had happened."""
        worker = self._worker()
        stopped = [child.pid for child in worker.children()]
        if worker.process is not None and self._random.random() < 0.5:
            stopped.append(worker.process.pid)
        for pid in stopped:
            _signal(pid, signal.SIGSTOP)
        self._over.wait(PAUSE)
        for pid in stopped:
            _signal(pid, signal.SIGCONT)

    def _restart_valkey(self, *, kill: bool) -> None:
        self._deployment.restart_valkey(kill=kill)
        self.kills += kill

    def _restart_simulator(self) -> None:
        self._deployment.provider.kill()
        self.kills += 1
        self._over.wait(self._random.uniform(0, 2))
        self._deployment.provider.start()

    def _restart_database(self) -> None:
        postgres = self._deployment.postgres
        assert postgres is not None
        postgres.stop()
        self._over.wait(self._random.uniform(0, 2))
        postgres.start()
        self.kills += 1

    def _cut(self, name: str) -> None:
        self._deployment.proxies[name].cut()

    def _refuse(self, name: str) -> None:
        proxy = self._deployment.proxies[name]
        proxy.refuse()
        self._over.wait(self._random.uniform(1, 6))
        proxy.refuse(on=False)

    def _slow(self, name: str) -> None:
        proxy = self._deployment.proxies[name]
        proxy.delay = self._random.uniform(0.02, 0.2)
        self._over.wait(self._random.uniform(2, 6))
        proxy.delay = 0.0


def _signal(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)
