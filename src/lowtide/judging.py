"""Judging an answer before its task gets it: is it an error, is the model to be asked again?

A model that is asked again sees its answer and what is wrong with it. That is one more request of
the same task: like what a generator yields next it is paid, booked, and survives a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from msgspec.structs import replace

from lowtide import demands
from lowtide.answer import Answer
from lowtide.calls import RESPONSES, Call
from lowtide.errors import InvalidAnswer, InvalidRequest
from lowtide.ids import custom_id, run_number

if TYPE_CHECKING:
    from lowtide.envelope import Envelope
    from lowtide.request import Request
    from lowtide.task import BatchTask

_SHOWN_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Again:
    """The model is to be asked again.

    Attributes:
        answer: What does not validate.
        error: Why; what the task gets if the model cannot be asked again.
        attempts: All that did not, this one included; see `LowtideError.attempts`.
    """

    answer: Answer
    error: InvalidAnswer
    attempts: list[dict[str, Any]]


def judge(
    task: BatchTask, answer: Answer, earlier: Sequence[dict[str, Any]] = ()
) -> Again | InvalidAnswer | None:
    """What is wrong with an answer by its task's `errors_on` and `output_retries`; None = nothing.

    Args:
        task: The task.
        answer: The answer to its request, with the request's output model.
        earlier: Attempts at the same answer that did not validate.
    """
    try:
        answer.raise_for(*demands.reasons(task.errors_on))
    except InvalidAnswer as error:
        return error
    if not task.output_retries or answer.output is None or answer.tool_calls:
        return None
    try:
        answer.parsed  # noqa: B018 - it validates
    except InvalidAnswer as error:
        # A refusal, or an answer cut off, would be the same again.
        return _invalid(task, answer, error, earlier) if error.code == "invalid_output" else None
    return None


def corrected(body: Mapping[str, Any], again: Again) -> dict[str, Any]:
    """The body that asks again: the conversation so far, the answer, and what is wrong with it."""
    said = {"role": "assistant", "content": again.answer.text}
    wanted = {"role": "user", "content": _complaint(again.answer)}
    field = "input" if again.answer.endpoint == RESPONSES else "messages"
    given = body.get(field) or []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return {**body, field: [*given, said, wanted]}


def next_request(task: BatchTask, request: Request, envelope: Envelope, again: Again) -> Request:
    """The request that asks again, the next step of the same task.

    Args:
        task: The task.
        request: The request whose answer does not validate.
        envelope: Its envelope, which is changed and packed here.
        again: What is wrong.

    Raises:
        InvalidRequest: It cannot be sent: it would be too large.
    """
    from lowtide import accept
    from lowtide.request import digest

    body = corrected(orjson.loads(request.body), again)
    lane, data, tokens = accept.encoded(task, Call(request.lane.endpoint, body))
    envelope.asked += 1
    envelope.invalid = again.attempts
    run = run_number(envelope.retries, envelope.replaced_task_nesting)
    return replace(
        request,
        custom_id=custom_id(request.task_id, run, envelope.step),
        lane=accept.own_lane(task, lane, request.tenant),
        body=data,
        tokens=tokens,
        share=digest(lane, data) if request.share else None,
        envelope=envelope.pack(),
    )


def next_call(task: BatchTask, call: Call, again: Again) -> Call:
    """The call that asks again at once.

    Raises:
        InvalidRequest: It would be too large.
    """
    from lowtide import accept

    following = Call(call.endpoint, corrected(call.body, again), call.output)
    accept.encoded(task, following)
    return following


def given_up(again: Again, refused: InvalidRequest) -> InvalidAnswer:
    """The error of an answer that cannot be asked for again."""
    error = again.error
    return InvalidAnswer(
        f"{error.message} It could not be asked for again: {refused}", error.details
    )


def _invalid(
    task: BatchTask, answer: Answer, error: InvalidAnswer, earlier: Sequence[dict[str, Any]]
) -> Again | InvalidAnswer:
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    made = [*earlier, {"at": at, "code": error.code, "message": error.message}]
    told = InvalidAnswer(error.message, {**error.details, "attempts": made})
    if len(made) <= task.output_retries:
        return Again(answer, told, made)
    listed = " ".join(f"{number}. {each['message']}" for number, each in enumerate(made, start=1))
    return InvalidAnswer(f"None of {len(made)} answers validates: {listed}", told.details)


def _complaint(answer: Answer) -> str:
    """What is wrong with an answer, in words for the model."""
    from pydantic import ValidationError

    found: list[str] = []
    try:
        if answer.output is not None:
            answer.output.model_validate_json(answer.text)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            place = ".".join(map(str, each["loc"])) or "the whole"
            found.append(f"- {place}: {each['msg']}")
    listed = "\n".join(found[:_SHOWN_ERRORS])
    return (
        f"Your answer does not validate:\n{listed}\n\n"
        "Answer again, with all of it put right and nothing but JSON that fits the schema."
    )
