"""OpenTelemetry: one span from the call to its result, when OpenTelemetry is installed and set up.

The call's trace travels in the message's headers, as W3C trace context, and with the request in
its envelope. Once the outcome is noted, by whichever replica and however much later, the spans of
the way are made from the times that the ledger knows; so no crash leaves one open.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    from lowtide.envelope import Envelope
    from lowtide.ledger import BatchRow, Outcome
    from lowtide.request import Request

_SCOPE = "lowtide"
_PARENT = "traceparent"
_NANO = 1_000_000_000


def attach() -> None:
    """Lets calls of batch tasks carry the trace that they are made in."""
    if _installed():
        from celery.signals import before_task_publish

        before_task_publish.connect(_publish, dispatch_uid="lowtide.tracing")


def carried(task: str, count: int = 1) -> dict[str, str]:
    """Headers with which calls of `task` belong to the trace that runs here; {} without one.

    A span says that the calls were sent.
    """
    if not _set_up():
        return {}
    from opentelemetry import propagate, trace

    headers: dict[str, str] = {}
    tracer = trace.get_tracer(_SCOPE)
    noted: dict[str, Any] = {"lowtide.task": task, "lowtide.calls": count}
    with tracer.start_as_current_span(
        f"{task} send", kind=trace.SpanKind.PRODUCER, attributes=noted
    ):
        propagate.inject(headers)
    return headers


def finished(
    batch: BatchRow, requests: Mapping[str, Request], outcomes: Sequence[Outcome], now: float
) -> None:
    """Makes the spans of requests that have their outcome.

    Args:
        batch: The batch that they were in.
        requests: custom_id → request.
        outcomes: What became of them.
        now: Epoch seconds.
    """
    if not _set_up():
        return
    from lowtide.envelope import unpack
    from lowtide.errors import EnvelopeError

    for outcome in outcomes:
        request = requests[outcome.custom_id]
        try:
            envelope = unpack(request.envelope)
        except EnvelopeError:
            continue
        _spans(batch, request, envelope, outcome, now)


def _spans(
    batch: BatchRow, request: Request, envelope: Envelope, outcome: Outcome, now: float
) -> None:
    from opentelemetry import propagate, trace

    tracer = trace.get_tracer(_SCOPE)
    root = tracer.start_span(
        request.task,
        context=propagate.extract(envelope.custom_headers or {}),
        kind=trace.SpanKind.CONSUMER,
        start_time=_nano(envelope.accepted_at),
        attributes=dict(_attributes(batch, request, outcome)),
    )
    if outcome.state == "FAILED":
        root.set_status(trace.StatusCode.ERROR, outcome.error_code or "failed")
    within = trace.set_span_in_context(root)
    for name, start, end in _parts(batch, envelope.accepted_at, now):
        kind = trace.SpanKind.CLIENT if name == "provider" else trace.SpanKind.INTERNAL
        part = tracer.start_span(name, context=within, kind=kind, start_time=_nano(start))
        part.end(_nano(end))
    root.end(_nano(now))


def _parts(batch: BatchRow, accepted: float, now: float) -> Iterator[tuple[str, float, float]]:
    """(name, start, end) of what happened one after the other, as far as it did."""
    before = accepted
    ends = (
        ("buffer", batch.sealed_at),
        ("submit", batch.submitted_at),
        ("provider", batch.ended_at),
        ("deliver", now),
    )
    for name, end in ends:
        if end is not None:
            # Clocks of several machines: a part never ends before it began.
            yield name, before, max(before, end)
            before = max(before, end)


def _attributes(
    batch: BatchRow, request: Request, outcome: Outcome
) -> Iterator[tuple[str, str | int | float]]:
    known = {
        "celery.task_id": request.task_id,
        "lowtide.custom_id": request.custom_id,
        "lowtide.lane": batch.lane,
        "lowtide.batch": batch.id,
        "lowtide.provider_batch": batch.provider_batch_id,
        "lowtide.outcome": str(outcome.state),
        "lowtide.cost_usd": outcome.cost,
        "gen_ai.request.model": batch.model,
        "gen_ai.usage.input_tokens": outcome.input_tokens,
        "gen_ai.usage.output_tokens": outcome.output_tokens,
        "error.type": outcome.error_code,
    }
    for name, value in known.items():
        if value is not None:
            yield name, value


def _publish(sender: str = "", headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is None or _PARENT in headers or not _set_up():
        return
    from celery import current_app

    if _is_batch_task(current_app, sender):
        headers.update(carried(sender))


def _is_batch_task(app: Celery, name: str) -> bool:
    from lowtide.task import BatchTask

    return isinstance(app.tasks.get(name), BatchTask)


@cache
def _installed() -> bool:
    return find_spec("opentelemetry") is not None


def _set_up() -> bool:
    """Whether somebody gave OpenTelemetry a place to send spans to."""
    if "opentelemetry.trace" not in sys.modules:
        return False  # nobody who sets it up leaves it unimported
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _nano(seconds: float) -> int:
    return int(seconds * _NANO)
