"""What has to be true when all has settled, whatever happened before: one checker for all tests."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import select

from lowtide.clock import SystemClock
from lowtide.ledger import Ledger
from lowtide.ledger.tables import BATCHES, REQUESTS
from tests.chaos.client import REJECTED, Client, Listener, results, told
from tests.chaos.deployment import Deployment
from tests.plugins.redis import leaked_keys

ORDINARY = "ordinary tasks that Celery ended twice"
_FILES = "SELECT purpose, filename FROM files"
_BILL = (
    "SELECT custom_id, sum(billed), max(input_tokens), max(output_tokens) FROM runs "
    "WHERE billed GROUP BY custom_id"
)
_STANDING = (b"sweep:all", b"escalate:all")
_SEPARATORS = dict.fromkeys(map(ord, "\u2028\u2029\u0085"))
_OPEN = ("RECORDED", "UPLOADED", "SUBMITTING", "SUBMITTED", "ENDED", "FETCHED", "HELD")


@dataclass
class Verdict:
    """What is wrong, by invariant; all empty when the promise was kept.

    Attributes:
        lost: Calls without an outcome.
        wrong: Calls whose outcome is not theirs.
        delivered_twice: Calls of batch tasks whose result was written more than once.
        paid_twice: Requests that the provider was paid for more than once, for no fault of its.
        unbooked: Where the ledger's tokens differ from the provider's bill.
        unsettled: Requests and batches of the ledger that are not at their end.
        leaked: Redis keys that nothing will ever remove.
        files: Files left at the provider.
        stuck: What is left in the buffers.
        untold: Calls whose end the stream was not told of, or not as it was.
    """

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    delivered_twice: list[str] = field(default_factory=list)
    paid_twice: list[str] = field(default_factory=list)
    unbooked: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def violations(self) -> dict[str, list[str]]:
        """Invariant → what broke it, for those that are broken."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: what for name, what in found.items() if isinstance(what, list) and what}


def check(
    deployment: Deployment,
    client: Client,
    listener: Listener | None = None,
    *,
    losable: str | None = None,
) -> Verdict:
    """Compares client, result backend, ledger, Redis and the provider's bill.

    Args:
        losable: Regular expression of custom_ids whose answers the provider lost on purpose
            after it was paid; those are rightly asked again.
    """
    verdict = Verdict()
    _check_results(verdict, deployment, client)
    if listener is not None:
        verdict.delivered_twice = [
            f"{task_id}: {len(seen)} results: {b' and '.join(sorted(seen))[:600]!r}"
            for task_id, seen in listener.twice.items()
            if task_id not in client.ordinary
        ]
        # Celery stores a task's failure when the backend fails, and runs it when it comes again.
        verdict.figures[ORDINARY] = len(listener.twice.keys() & client.ordinary)
    rows = _check_ledger(verdict, deployment)
    _check_bill(verdict, deployment, rows, losable)
    _check_redis(verdict, deployment)
    _check_told(verdict, deployment, client)
    verdict.files = files(deployment)
    return verdict


def settled(deployment: Deployment, client: Client) -> bool:
    """Whether every call has an outcome and nothing is on its way."""
    # What is cheap to ask comes first: this process also carries all that goes through proxies.
    if _messages(deployment) or _timers(deployment) or _buffered(deployment):
        return False
    if open_batches(deployment) or files(deployment):
        return False
    return len(results(deployment.redis, client.expected)) == len(client.expected)


def files(deployment: Deployment) -> list[str]:
    """Names of the files at the provider."""
    with closing(sqlite3.connect(deployment.provider.state / "simulator.db")) as shelf:
        return [f"{purpose} {name}" for purpose, name in shelf.execute(_FILES)]


def _check_results(verdict: Verdict, deployment: Deployment, client: Client) -> None:
    found = results(deployment.redis, client.expected)
    for task_id, wanted in client.expected.items():
        meta = found.get(task_id)
        if meta is None:
            verdict.lost.append(f"{task_id} ({client.roles.get(task_id)})")
        elif wanted is REJECTED:
            error = meta["result"]
            kind = error.get("exc_type") if isinstance(error, dict) else None
            if (meta["status"], kind) != ("FAILURE", "RequestRejected"):
                verdict.wrong.append(f"{task_id}: {meta['status']} {meta['result']!r:.300}")
        elif meta["status"] != "SUCCESS" or _plain(meta["result"]) != wanted:
            verdict.wrong.append(
                f"{task_id}: {meta['status']} {meta['result']!r:.300}, not {wanted!r:.100}"
            )
    verdict.figures["calls"] = len(client.expected)


def _check_told(verdict: Verdict, deployment: Deployment, client: Client) -> None:
    heard = told(deployment.redis)
    for task_id, wanted in client.expected.items():
        if str(client.roles.get(task_id)).startswith("told "):
            said = {_plain(each) for each in heard.get(task_id, ())}
            if said != {wanted}:
                verdict.untold.append(f"{task_id}: the stream heard {said!r:.200}")
    verdict.figures["told"] = sum(map(len, heard.values()))


def _plain(result: Any) -> Any:
    """A result without the separators that the simulator puts into answers as a fault."""
    if isinstance(result, list):
        return [_plain(each) for each in result]
    return result.translate(_SEPARATORS) if isinstance(result, str) else result


def open_batches(deployment: Deployment) -> list[str]:
    """Id and state of each batch that is not at its end."""
    ledger = Ledger(deployment.ledger_url, SystemClock())
    try:
        with ledger._db.read() as connection:
            query = select(BATCHES.c.id, BATCHES.c.state).where(BATCHES.c.state.in_(_OPEN))
            return [f"{row.id} {row.state}" for row in connection.execute(query)]
    finally:
        ledger.close()


def _check_ledger(verdict: Verdict, deployment: Deployment) -> dict[str, Any]:
    verdict.unsettled += [f"batch {each}" for each in open_batches(deployment)]
    ledger = Ledger(deployment.ledger_url, SystemClock())
    names = ("custom_id", "state", "input_tokens", "output_tokens", "shares")
    columns = [REQUESTS.c[name] for name in names]
    with ledger._db.read() as connection:
        rows = {row.custom_id: row for row in connection.execute(select(*columns))}
        batches = connection.execute(select(BATCHES.c.state)).scalars().all()
    ledger.close()
    verdict.unsettled += [f"request {r.custom_id}" for r in rows.values() if r.state == "RECORDED"]
    verdict.figures["requests"] = len(rows)
    verdict.figures["batches"] = len(batches)
    return rows


def _check_bill(
    verdict: Verdict, deployment: Deployment, rows: dict[str, Any], losable: str | None
) -> None:
    with closing(sqlite3.connect(deployment.provider.state / "simulator.db")) as bill:
        paid = bill.execute(_BILL).fetchall()
    # Of those that share a line one pays for it: not always the one that named it.
    payers = defaultdict(list)
    for name, row in rows.items():
        if row.input_tokens is not None:
            payers[row.shares or name].append(row)
    excused = 0
    for custom_id, billed, input_tokens, output_tokens in paid:
        if billed > 1:
            if losable and re.search(losable, custom_id):
                excused += 1
            else:
                verdict.paid_twice.append(f"{custom_id}: {billed} times")
        booked = payers[custom_id]
        row = booked[0] if booked else rows.get(custom_id)
        if len(booked) > 1:
            verdict.unbooked.append(f"{custom_id} is booked with {len(booked)} requests")
        elif row is None:
            verdict.unbooked.append(f"{custom_id} was paid and is not in the ledger")
        elif (row.input_tokens, row.output_tokens) != (input_tokens, output_tokens):
            verdict.unbooked.append(
                f"{custom_id}: paid {input_tokens}+{output_tokens} tokens, "
                f"booked {row.input_tokens}+{row.output_tokens}"
            )
    verdict.figures["paid requests"] = len(paid)
    verdict.figures["lost by the provider, asked again"] = excused


def _buffered(deployment: Deployment) -> list[str]:
    waiting: Collection[Any] = deployment.redis.keys("{lowtide}:*:lines")
    return [key.decode() for key in waiting]


def _timers(deployment: Deployment) -> list[str]:
    """The timers of steps; those that always stand are left out."""
    timers: Any = deployment.redis.zrange("{lowtide}:timers", 0, -1)
    return [timer.decode() for timer in timers if timer not in _STANDING]


def _messages(deployment: Deployment) -> int:
    """Messages in queues, and those that no worker has acknowledged."""
    redis: Any = deployment.redis
    return int(redis.hlen("unacked") + redis.llen("celery") + redis.llen("lowtide"))


def _check_redis(verdict: Verdict, deployment: Deployment) -> None:
    verdict.stuck = [*_buffered(deployment), *_timers(deployment)]
    verdict.leaked = leaked_keys(deployment.redis, [])
