"""Tasks that end before they ask anything: their destinations are told of that, too.

They have no request in the ledger whose outcome an entry of the outbox could be written with. So
it is written after the task has ended and before its message is acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.task import Context
from celery.utils.log import get_logger

from lowtide import carried, turn

if TYPE_CHECKING:
    from lowtide.endings import Ending
    from lowtide.task import BatchTask

logger = get_logger(__name__)
_WAITS = (0.1, 0.5, 1.0, 2.0, 3.0)


def check(task: BatchTask, context: Context) -> None:
    """Refuses a call that names a destination which the settings do not have, before it is paid.

    Raises:
        SettingsError: With the names that there are.
    """
    names = carried.recipients(task, carried.headers_of(context))
    if names and not context.retries:
        from lowtide import destinations, runtime

        destinations.check(runtime.of(task.app).settings, names)


def tell(task: BatchTask, request: dict[str, Any], ending: Ending | None) -> None:
    """Writes what destinations are to be told of a task that ended in its first phase.

    Args:
        task: The task.
        request: The call, as Celery's tracer takes it.
        ending: How it ended; None when it has not.

    Raises:
        LedgerUnavailable: The ledger did not take it for some seconds; nothing is written.
        redis.RedisError: The same for Redis.
    """
    headers = carried.headers_of(Context(request))
    if ending is None or not carried.recipients(task, headers):
        return
    from redis.exceptions import RedisError

    from lowtide import destinations, runtime, telling
    from lowtide.endings import Ended
    from lowtide.errors import LedgerUnavailable
    from lowtide.ids import custom_id, run_number

    rt = runtime.of(task.app)
    run = run_number(request.get("retries") or 0, request.get("replaced_task_nesting") or 0)
    name = custom_id(request["id"], run, 0)
    made = [
        message
        for message in telling.entries(rt, Ended(ending, task, request, headers), name)
        if destinations.is_known(rt.settings, message.destination)
    ]
    for wait in (*_WAITS, None):
        try:
            telling.post(rt, made)
        except (LedgerUnavailable, RedisError):
            if wait is None:
                raise
            rt.clock.sleep(wait)
        else:
            return


def attach() -> None:
    """Hears of tasks that end in the ordinary way: those with an ETA or a rate limit."""
    signals.task_success.connect(_succeeded, weak=False, dispatch_uid="lowtide.early")
    signals.task_failure.connect(_failed, weak=False, dispatch_uid="lowtide.early")


def hears_alone(signal: Any) -> bool:
    """Whether nobody else hears `signal` of tasks that have succeeded."""
    return all(receiver is _succeeded for _, receiver in signal.receivers)


def _succeeded(sender: Any, result: Any, **_: Any) -> None:
    if _ends_here(sender):
        from celery import states

        from lowtide.endings import Ending

        _tell(sender, Ending(states.SUCCESS, result))


def _failed(sender: Any, exception: Any, einfo: Any = None, **_: Any) -> None:
    if _ends_here(sender):
        from lowtide.endings import failed

        text = getattr(einfo, "traceback", None)
        _tell(sender, failed(sender.app, exception, None if text is None else str(text)))


def _ends_here(task: Any) -> bool:
    """Whether a batch task ends under Celery's tracer alone; elsewhere lowtide is told anyway."""
    if turn.current() is not None:
        return False
    from lowtide.task import BatchTask

    if not isinstance(task, BatchTask) or not task.request.id:
        return False
    return not turn.is_direct(task.request)


def _tell(task: Any, ending: Ending) -> None:
    try:
        tell(task, dict(task.request.__dict__), ending)
    except Exception:
        logger.exception(
            "The destinations of task %s[%s] are not told how it ended", task.name, task.request.id
        )
