"""A dry run: what calls of a batch task would ask and cost, without sending any of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lowtide import steps

if TYPE_CHECKING:
    from lowtide.calls import Call
    from lowtide.settings import Thresholds
    from lowtide.task import BatchTask

# As long as those of Celery's own task ids.
_CUSTOM_ID = "0" * 40


@dataclass(frozen=True, slots=True)
class Estimate:
    """What calls would use. Money in USD, None when a price is unknown.

    Attributes:
        calls: How many calls there are.
        requests: How many of them need a model; the others have their result already.
        refused: How many cannot be sent, by error message.
        bytes: Size of the batch files.
        batches: Batch files that it takes at least: one for each lane, more when they are large.
        input_tokens: Estimated from bytes, rather too many than too few. Of a generator task it
            is the first request alone, because the next ones depend on answers.
        output_tokens: What `output_tokens` said, or the most that the requests allow; None when
            any of them sets no limit.
        input_cost: The input at batch price.
        cost: All of it at batch price; None, too, while `output_tokens` is unknown.
        full_price: The same at the synchronous API.
    """

    calls: int = 0
    requests: int = 0
    refused: Mapping[str, int] | None = None
    bytes: int = 0
    batches: int = 0
    input_tokens: int = 0
    output_tokens: int | None = 0
    input_cost: float | None = 0.0
    cost: float | None = 0.0
    full_price: float | None = 0.0


def dry_run(task: BatchTask, calls: Iterable[Any], *, output_tokens: int | None = None) -> Estimate:
    """Runs the task's function for each call, up to its first request, and counts.

    Nothing is sent and nothing is stored, but the user's own code runs.

    Args:
        task: The batch task.
        calls: As for `delay_many`: a tuple holds positional arguments, a dict keyword arguments,
            anything else is the one argument. It is read once, in constant memory.
        output_tokens: How long one answer is expected to be.
    """
    from lowtide.bulk import arguments_of

    total = Estimate()
    refused: dict[str, int] = {}
    lanes: dict[str, _Files] = {}
    for given in calls:
        args, kwargs = arguments_of(given)
        total = replace(total, calls=total.calls + 1)
        try:
            step = steps.advance(task.build(*args, **kwargs), [], task.to_call)
            if isinstance(step, steps.Asks):
                total = _with(total, task, step.call, output_tokens, lanes)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            refused[message] = refused.get(message, 0) + 1
    return replace(total, refused=refused, batches=sum(each.count for each in lanes.values()))


@dataclass(slots=True)
class _Files:
    """The batch files of one lane, filled as its buffers are."""

    count: int = 0
    requests: int = 0
    bytes: int = 0
    tokens: int = 0


def _with(
    total: Estimate,
    task: BatchTask,
    call: Call,
    output_tokens: int | None,
    lanes: dict[str, _Files],
) -> Estimate:
    """`total` with one request more."""
    from lowtide import accept, prices, runtime
    from lowtide.request import Request
    from lowtide.tokens import Usage, most_written

    settings = runtime.of(task.app).settings
    lane, body, tokens = accept.encoded(task, call)
    size = Request(_CUSTOM_ID, "", task.name, lane, body, b"", tokens).line_size
    _fill(lanes.setdefault(lane.key, _Files()), settings.thresholds(lane), size, tokens)
    most = most_written(call.endpoint, call.body) if output_tokens is None else output_tokens

    def price(written: int | None, tier: prices.Tier) -> float | None:
        if written is None:
            return None
        return prices.price_of(settings, lane, Usage(tokens, 0, written), tier=tier)

    return replace(
        total,
        requests=total.requests + 1,
        bytes=total.bytes + size,
        input_tokens=total.input_tokens + tokens,
        output_tokens=_sum(total.output_tokens, most),
        input_cost=_sum(total.input_cost, price(0, "batch")),
        cost=_sum(total.cost, price(most, "batch")),
        full_price=_sum(total.full_price, price(most, "standard")),
    )


def _fill(files: _Files, limits: Thresholds, size: int, tokens: int) -> None:
    """Puts a line into the lane's last file, or into a new one where that one is full."""
    full = (
        files.requests + 1 > limits.max_requests
        or files.bytes + size > limits.max_bytes
        or files.tokens + tokens > limits.max_tokens
    )
    if full or not files.count:
        files.count += 1
        files.requests = files.bytes = files.tokens = 0
    files.requests += 1
    files.bytes += size
    files.tokens += tokens


def _sum(total: Any, more: Any) -> Any:
    """The sum, None when a part of it is unknown."""
    return None if total is None or more is None else total + more
