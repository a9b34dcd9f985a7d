"""A task's ending made again from the provider's answer, with nothing sent and nothing stored.

The part of the task's function that follows the answer runs again; where it would retry the task
or put another in its place, it ends instead.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import states
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry

from lowtide import endings, judging, phases, results, steps
from lowtide.accept import run_step
from lowtide.endings import Ending
from lowtide.envelope import Envelope, Outcome, recall, unpack
from lowtide.errors import AttemptsExhausted, LowtideError, RequestRejected
from lowtide.ledger import RequestState
from lowtide.request import Request
from lowtide.spool import spool_folder
from lowtide.turn import Turn, WentOn

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow, RequestRow
    from lowtide.runtime import Runtime

Found: TypeAlias = bytes | LowtideError
"""What a file tells of a request: the response body as JSON, or the provider's refusal."""
_UNREADABLE = "The provider's answer cannot be read."


def outcomes(
    rt: Runtime, batch: BatchRow, wanted: AbstractSet[str], size: int
) -> Iterator[dict[str, Found]]:
    """What the provider's files tell of the `wanted` custom_ids, up to `size` of them at a time.

    Raises:
        LowtideError: A file cannot be had; the message says why, and what to do.
    """
    files = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
    left, found = set(wanted), dict[str, Found]()
    with spool_folder(rt) as folder:
        for file_id in files:
            path = folder / "results.jsonl"
            try:
                rt.provider(batch.account).download(file_id, path)
            except LowtideError as error:
                raise _gone(rt, batch, error) from error
            for raw in results.read_lines(path):
                line = _read(batch, raw)
                if line is None or line[0] not in left:
                    continue
                left.discard(line[0])
                found[line[0]] = line[1]
                if len(found) >= size:
                    yield found
                    found = {}
    if found:
        yield found


def _gone(rt: Runtime, batch: BatchRow, error: LowtideError) -> LowtideError:
    if rt.settings.keep_files:
        return error
    return LowtideError(
        f"The provider's files of batch {batch.id} cannot be had: they are deleted when a batch "
        "is delivered, unless LOWTIDE_KEEP_FILES is on, and LOWTIDE_KEEP_RESULTS did not keep the "
        f"results. ({error.message})",
        {"batch": batch.id},
    )


def _read(batch: BatchRow, raw: bytes) -> tuple[str, Found] | None:
    """custom_id and outcome of a line; None when it is not the last word about its request."""
    seen = results.glance(raw, batch.endpoint)
    if seen is not None:
        return seen.custom_id, seen.body
    line = results.parse_line(raw)
    if line is None:
        return None
    match line.outcome:
        case results.Answered() as answered:
            return line.custom_id, results.write_body(answered.body)
        case results.Rejected() as refused:
            told = {"code": refused.code, "param": refused.param, "status": refused.status}
            return line.custom_id, RequestRejected(refused.message, _about(batch, told))
    return None


def noted_error(row: RequestRow, batch: BatchRow) -> LowtideError | None:
    """The error of a failed request as far as the ledger notes it; None when it notes none."""
    if row.state != RequestState.FAILED or not (row.error_message or row.error_code):
        return None
    message = row.error_message or f"The request failed: {row.error_code}."
    refused = row.status_code is not None and 400 <= row.status_code < 500
    kind = RequestRejected if refused else LowtideError
    return kind(message, _about(batch, {"code": row.error_code, "status": row.status_code}))


def _about(batch: BatchRow, details: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in details.items() if value is not None}
    return {"lane": batch.lane, "batch": batch.provider_batch_id, **known}


def ending(task: Any, context: Context, request: Request, found: Found) -> Ending | None:
    """How a task ends, or ended, with what was found.

    Args:
        task: The Celery task.
        context: The call's context, without links, chain and chord.
        request: The stored request that ended it.
        found: Its outcome.

    Returns:
        None when the task goes on, or went on, in place of ending.
    """
    envelope = unpack(request.envelope)
    outcome = _judged(task, request, envelope, _outcome(task, request, found))
    history = [*map(recall, envelope.history), outcome]
    turn = Turn(request.task_id, history=history, envelope=envelope, is_replay=True)
    try:
        step = run_step(task, context, turn)
    except (WentOn, Ignore, Reject, Retry):
        return None
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return endings.failed(task.app, error, text)
    return None if isinstance(step, steps.Asks) else Ending(states.SUCCESS, step.value)


def _judged(task: Any, request: Request, envelope: Envelope, outcome: Outcome) -> Outcome:
    """What the task gets for an answer by its own demands. It was asked for the last time."""
    if isinstance(outcome, LowtideError) or not (task.output_retries or task.errors_on):
        return outcome
    try:
        answer = phases.answer_of(task, envelope, outcome)
    except (ImportError, AttributeError):
        return outcome  # the run itself tells that the output model is gone
    wrong = judging.judge(task, answer, envelope.invalid)
    if isinstance(wrong, judging.Again):
        wrong = wrong.error
    about = {"task": task.name, "task_id": request.task_id, "lane": request.lane.key}
    return outcome if wrong is None else wrong.about(**about)


def _outcome(task: Any, request: Request, found: Found) -> Outcome:
    body = None if isinstance(found, LowtideError) else results.read_body(found)
    if body is not None:
        return request.lane.endpoint, body
    error = found if isinstance(found, LowtideError) else AttemptsExhausted(_UNREADABLE)
    return error.about(task=task.name, task_id=request.task_id, lane=request.lane.key)
