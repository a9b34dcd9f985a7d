"""One step of a batch task: run the user's function up to its next request, or to its end."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lowtide.answer import Answer
from lowtide.calls import Call
from lowtide.errors import LowtideError

if TYPE_CHECKING:
    from lowtide.envelope import Outcome

ToCall: TypeAlias = Callable[[object], Call]


@dataclass(frozen=True, slots=True)
class Asks:
    """The function wants `call` answered before it goes on.

    Attributes:
        ends: True when the answer is the task's result, as for a plain function.
    """

    call: Call
    ends: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The function is at its end; `value` is the task's result."""

    value: Any


Step: TypeAlias = Asks | Done


def advance(returned: object, history: Sequence[Outcome], to_call: ToCall) -> Step:
    """The step after the outcomes in `history`.

    Args:
        returned: What the user's function gave back: a generator, or one request.
        history: Outcomes of the generator's requests so far, oldest first. An error is thrown
            into the generator at its yield, so that the user's code may catch it.
        to_call: Completes what was returned or yielded with the task's defaults.

    Raises:
        Exception: Whatever the user's code raises.
    """
    if not inspect.isgenerator(returned):
        return Asks(to_call(returned), ends=True)
    try:
        call = to_call(next(returned))
        for outcome in history:
            call = to_call(_reply(returned, call, outcome))
    except StopIteration as end:
        return Done(jsonable(end.value))
    finally:
        # What waits for an answer waits in the envelope: let `with` and `finally` blocks end.
        returned.close()
    return Asks(call, ends=False)


def run_through(returned: object, to_call: ToCall, ask: Callable[[Call], Outcome]) -> Step:
    """As `advance`, but asks for each answer at once.

    Returns:
        `Done`, or the only request of a plain function.
    """
    if not inspect.isgenerator(returned):
        return Asks(to_call(returned), ends=True)
    try:
        call = to_call(next(returned))
        while True:
            call = to_call(_reply(returned, call, ask(call)))
    except StopIteration as end:
        return Done(jsonable(end.value))


def _reply(generator: Generator[Any, Any, Any], call: Call, outcome: Outcome) -> object:
    """What the generator yields next, given how its `call` ended."""
    if isinstance(outcome, LowtideError):
        return generator.throw(outcome)
    endpoint, body = outcome
    return generator.send(Answer(endpoint, body, call.output))


def jsonable(value: Any) -> Any:
    """`value` with answers and Pydantic models in it made into JSON values."""
    if isinstance(value, Answer):
        return value.value()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if type(value) is tuple:
        return tuple(jsonable(item) for item in value)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    return value
