"""Chaos: a deployment is broken at random while a client sends calls; then the books are compared."""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowtide.simulator.chaos import rules
from tests.chaos.client import Client, Listener, results
from tests.chaos.deployment import Deployment
from tests.chaos.invariants import ORDINARY, Verdict, check, settled
from tests.chaos.monkeys import Monkeys

# The provider loses the answers of these requests after it ran them: so it is known of which
# requests a second payment is the provider's own doing.
LOSABLE = "^0[0-3]"
_LOSE = {"kind": "line_missing", "match": LOSABLE, "probability": 0.3}


_CREATIONS = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What a run of chaos is.

    Attributes:
        seconds: How long things are broken.
        rate: Calls sent in a second, about.
        every: Seconds between two actions.
        level: Of the simulator's faults.
        patience: Seconds that things may take to settle afterwards.
    """

    seconds: float = 180.0
    seed: int = 1
    database: str = "sqlite"
    workers: int = 4
    rate: float = 20.0
    every: float = 3.0
    level: int = 2
    patience: float = 300.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        verdict: What was wrong when all had settled.
        done: How often each action was taken.
        kinds: Calls sent of each kind.
        calls: Tasks that the client knows of.
        settled: Seconds that it took to settle; None when it did not.
        log: Lines of the workers' logs by level.
    """

    verdict: Verdict
    done: Counter[str]
    kinds: Counter[str]
    calls: int
    unsure: int
    kills: int
    seconds: float
    settled: float | None
    log: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return self.settled is not None and not self.verdict.violations


def run(plan: Plan, folder: Path) -> Outcome:
    """One run in `folder`, which holds its logs afterwards."""
    deployment = Deployment(
        folder,
        database=plan.database,
        workers=plan.workers,
        proxied=True,
        simulator=_simulator_flags(plan, folder),
        env={"LOWTIDE_CREATIONS_PER_HOUR": str(_CREATIONS)},
    )
    try:
        return _run(plan, deployment)
    finally:
        gc.collect()  # Celery's results say goodbye to Valkey, while it is there
        deployment.stop()


def _run(plan: Plan, deployment: Deployment) -> Outcome:
    # The client's own path to Redis is not broken, but for the restarts of Valkey.
    os.environ["LOWTIDE_REDIS_URL"] = deployment.valkey.url
    app = importlib.import_module("tests.chaos.app").app
    client = Client(app, plan.seed)
    listener = Listener(deployment.redis)
    deployment.ready(app)
    over = threading.Event()
    monkeys = Monkeys(deployment, plan.seed, over)
    sender = threading.Thread(target=_send, args=(plan, client, over))
    sender.start()
    start = time.monotonic()
    try:
        _break(plan, monkeys, start)
    finally:
        over.set()
        sender.join()
    broken = time.monotonic() - start
    _show(f"{len(client.expected)} calls sent; things settle now")
    took = _settle(plan, deployment, client, monkeys)
    verdict = check(deployment, client, listener, losable=LOSABLE)
    listener.stop()
    return Outcome(
        verdict,
        monkeys.done,
        client.kinds,
        len(client.expected),
        len(client.unsure),
        monkeys.kills,
        broken,
        took,
        _log_lines(deployment),
    )


def _break(plan: Plan, monkeys: Monkeys, start: float) -> None:
    while (now := time.monotonic() - start) < plan.seconds:
        _show(f"{now:5.0f} s: {monkeys.act()}")
        monkeys.revive()
        time.sleep(max(0.0, plan.every - (time.monotonic() - start - now)))


def _settle(plan: Plan, deployment: Deployment, client: Client, monkeys: Monkeys) -> float | None:
    start = time.monotonic()
    while (waited := time.monotonic() - start) < plan.patience:
        monkeys.revive()
        if settled(deployment, client):
            return waited
        time.sleep(1)
    missing = len(client.expected) - len(results(deployment.redis, client.expected))
    _show(f"not settled within {plan.patience:.0f} s: {missing} calls without an outcome")
    return None


def _send(plan: Plan, client: Client, over: threading.Event) -> None:
    """Sends at a steady rate: what an outage held up is made up for."""
    start = time.monotonic()
    while not over.wait(0.05):
        due = (time.monotonic() - start) * plan.rate
        while len(client.expected) < due and not over.is_set():
            client.send()


def _simulator_flags(plan: Plan, folder: Path) -> list[str]:
    # Batches are small here, so that many are on their way: an hour's worth is soon made.
    config = folder / "simulator.toml"
    config.write_text(f"[limits]\ncreations_per_hour = {_CREATIONS}\n", "utf-8")
    flags = ["--config", str(config)]
    flags += ["--delay", "uniform:0.2s,2s", "--seed", str(plan.seed)]
    mix = [rule for rule in rules(plan.level) if rule["kind"] != "line_missing"]
    for rule in [*mix, _LOSE]:
        words = [f"{key}={shlex.quote(str(value))}" for key, value in rule.items() if key != "kind"]
        flags += ["--fault", " ".join([rule["kind"], *words])]
    return flags


def _log_lines(deployment: Deployment) -> Counter[str]:
    lines: Counter[str] = Counter()
    for worker in deployment.workers:
        with worker.log.open(errors="replace") as log:
            for line in log:
                for level in ("WARNING", "ERROR", "CRITICAL"):
                    if f": {level}/" in line:
                        lines[level] += 1
                if line.startswith("Traceback"):
                    lines["Traceback"] += 1
    return lines


def _show(text: str) -> None:
    print(text, flush=True)


def as_table(plan: Plan, outcome: Outcome) -> list[tuple[str, Any]]:
    """The figures of a run, for people."""
    verdict = outcome.verdict
    return [
        ("calls", outcome.calls),
        ("requests in the ledger", verdict.figures.get("requests")),
        ("batches", verdict.figures.get("batches")),
        ("processes killed", outcome.kills),
        ("actions", outcome.done.total()),
        ("lost", len(verdict.lost)),
        ("wrong", len(verdict.wrong)),
        ("delivered twice", len(verdict.delivered_twice)),
        ("paid twice", len(verdict.paid_twice)),
        ("paid and not booked, or booked wrongly", len(verdict.unbooked)),
        ("not at their end in the ledger", len(verdict.unsettled)),
        ("left in buffers", len(verdict.stuck)),
        ("Redis keys leaked", len(verdict.leaked)),
        ("files left at the provider", len(verdict.files)),
        ("seconds of chaos", round(outcome.seconds)),
        ("seconds to settle", "never" if outcome.settled is None else round(outcome.settled)),
        ("answers lost by the provider, asked again", verdict.figures.get(_EXCUSED)),
        (ORDINARY, verdict.figures.get(ORDINARY)),
        ("calls whose sending failed (not counted)", outcome.unsure),
    ]


_EXCUSED = "lost by the provider, asked again"
