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
        later_requests: How many requests generators make after their first, as the task's last
            calls did; their tokens and costs are in the sums then. None when the ledger knows no
            such calls: then the sums are of the first requests alone.
        refused: How many cannot be sent, by error message.
        bytes: Size of the batch files, of first requests alone.
        batches: Batch files that it takes at least: one for each lane, more when they are large.
            Of first requests alone.
        input_tokens: Estimated from bytes and from what the model's last batches used; rather too
            many than too few where the ledger knows none.
        output_tokens: What `output_tokens` said, else as many as the task's last answers had,
            else the most that the requests allow; None when any of them sets no limit.
        input_cost: The input at batch price, of first requests alone.
        cost: All of it at batch price; None, too, while `output_tokens` is unknown.
        full_price: The same at the synchronous API.
    """

    calls: int = 0
    requests: int = 0
    later_requests: int | None = 0
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

    Nothing is sent and nothing is stored, but the user's own code runs. What is known of earlier
    calls is read from the ledger, where there is one.

    Args:
        task: The batch task.
        calls: As for `delay_many`: a tuple holds positional arguments, a dict keyword arguments,
            anything else is the one argument. It is read once, in constant memory.
        output_tokens: How long one answer is expected to be.
    """
    from lowtide.bulk import arguments_of

    run = _Run(task, output_tokens)
    total = Estimate()
    refused: dict[str, int] = {}
    generators = 0
    for given in calls:
        args, kwargs = arguments_of(given)
        total = replace(total, calls=total.calls + 1)
        try:
            step = steps.advance(task.build(*args, **kwargs), [], task.to_call)
            if isinstance(step, steps.Asks):
                total = run.with_request(total, step.call)
                generators += not step.ends
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            refused[message] = refused.get(message, 0) + 1
    if generators:
        total = run.with_later(total, generators)
    return replace(total, refused=refused, batches=run.batches)


class _Run:
    """One dry run.

    Args:
        task: The batch task.
        output_tokens: How long one answer is said to be.
    """

    def __init__(self, task: BatchTask, output_tokens: int | None) -> None:
        from lowtide import runtime
        from lowtide.learned import Learned

        rt = runtime.of(task.app)
        self._task = task
        self._said = output_tokens
        self._settings = rt.settings
        self._learned = Learned(rt)
        self._lanes: dict[str, _Files] = {}

    @property
    def batches(self) -> int:
        """How many batch files the requests so far take."""
        return sum(each.count for each in self._lanes.values())

    def with_request(self, total: Estimate, call: Call) -> Estimate:
        """`total` with one request more."""
        from lowtide import accept, prices
        from lowtide.request import Request
        from lowtide.tokens import Usage

        lane, body, counted = accept.encoded(self._task, call)
        size = Request(_CUSTOM_ID, "", self._task.name, lane, body, b"", counted).line_size
        files = self._lanes.setdefault(lane.key, _Files())
        _fill(files, self._settings.thresholds(lane), size, counted)
        tokens = round(counted * self._learned.ratio(lane.model))
        most = self._written(call)

        def price(written: int | None, tier: prices.Tier) -> float | None:
            if written is None:
                return None
            return prices.price_of(self._settings, lane, Usage(tokens, 0, written), tier=tier)

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

    def with_later(self, total: Estimate, generators: int) -> Estimate:
        """`total` with what so many calls of a generator ask after their first request."""
        # With moderation the judgements are steps too: how many depends on the input.
        later = None if self._task.moderate else self._learned.later(self._task.name)
        if later is None:
            return replace(total, later_requests=None)
        written = round(later.output_tokens * generators)
        return replace(
            total,
            later_requests=round(later.requests * generators),
            input_tokens=total.input_tokens + round(later.input_tokens * generators),
            output_tokens=_sum(total.output_tokens, written),
            cost=_sum(total.cost, _times(later.cost, generators)),
            full_price=_sum(total.full_price, _times(later.full_price, generators)),
        )

    def _written(self, call: Call) -> int | None:
        """Output tokens of the answer: as said, as learned, or the most that it may have."""
        from lowtide.tokens import most_written

        if self._said is not None:
            return self._said
        learned = self._learned.written(str(call.body["model"]), self._task.name)
        return most_written(call.endpoint, call.body) if learned is None else round(learned)


@dataclass(slots=True)
class _Files:
    """The batch files of one lane, filled as its buffers are."""

    count: int = 0
    requests: int = 0
    bytes: int = 0
    tokens: int = 0


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


def _times(money: float | None, count: int) -> float | None:
    return None if money is None else money * count
