"""Who is told how a task ended: entries for the outbox, written with the task's outcome."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from celery.app.task import Context
from celery.utils.log import get_logger

from lowtide import failpoints, messages
from lowtide.carried import recipients
from lowtide.destinations import KEPT
from lowtide.ledger import BatchRow, NewMessage
from lowtide.messages import Told

if TYPE_CHECKING:
    from lowtide.endings import Ended
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


def entries(
    rt: Runtime,
    ended: Ended,
    custom_id: str,
    *,
    batch: BatchRow | None = None,
    tenant: str | None = None,
    ended_at: float | None = None,
) -> list[NewMessage]:
    """What the outbox is to hold of a task that ended.

    Args:
        rt: The runtime.
        ended: The task.
        custom_id: The request that ended it.
        batch: The request's batch; None for a task that asked nothing.
        tenant: Who pays.
        ended_at: When it ended, epoch seconds; now if left out.
    """
    names = recipients(ended.task, ended.headers)
    keeps = rt.settings.keep_results if batch is not None else 0.0
    if not names and not keeps:
        return []
    told = Told(
        custom_id,
        ended.task.name,
        str(ended.request["id"]),
        ended.ending,
        ended_at=rt.clock.now() if ended_at is None else ended_at,
        about={
            "batch": None if batch is None else batch.id,
            "lane": None if batch is None else batch.lane,
            "tenant": tenant,
        },
        request=messages.kept_of(rt.app, Context(ended.request)),
    )
    blob = messages.pack(rt.app, told)
    batch_id = None if batch is None else batch.id
    made = [NewMessage(name, custom_id, blob, batch_id) for name in names]
    if keeps:
        made.append(NewMessage(KEPT, custom_id, blob, batch_id, due=rt.clock.now() + keeps))
    return made


def arm(rt: Runtime, made: Iterable[NewMessage]) -> set[str]:
    """Arms the sending of entries that are about to be written, should nobody be told of them.

    Returns:
        Names of the destinations that are to be told now: for `kick`.
    """
    names = {message.destination for message in made}
    for name in names:
        if name == KEPT:
            at = rt.clock.now() + rt.settings.keep_results
        else:
            at = rt.clock.now() + rt.settings.lease
        rt.timers.arm("tell", name, at, if_absent=True)
    return names - {KEPT}


def kick(rt: Runtime, names: Collection[str]) -> None:
    """Has destinations told of what is written."""
    failpoints.reach("tell.written")
    for name in sorted(names):
        rt.send("tell", name)


def post_again(rt: Runtime, made: Sequence[NewMessage]) -> None:
    """Puts entries back that may have been sent before: they are sent again, under the same id."""
    if made:
        names = arm(rt, made)
        rt.ledger.post_again(made)
        kick(rt, names)


def post(rt: Runtime, made: Sequence[NewMessage]) -> None:
    """Writes entries of tasks that asked nothing, and has them told.

    Raises:
        LedgerUnavailable: Nothing is written.
    """
    if made:
        names = arm(rt, made)
        rt.ledger.post(made)
        kick(rt, names)
