"""Spans: one trace from the call to its result, with each part of the way."""

from __future__ import annotations

import uuid

import pytest
from celery import Celery
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lowtide import BatchTask, tracing
from lowtide.calls import chat
from lowtide.clock import SimulatedClock
from lowtide.envelope import Body, Envelope
from lowtide.ledger import Ledger, Outcome, RequestState
from lowtide.request import Request, encode
from tests.web.history import deliver_batch, record_batch


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """OpenTelemetry as an app sets it up; a process can do so once."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    return kept


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return lambda: {span.name: span for span in exporter.get_finished_spans()}


@pytest.fixture
def app() -> Celery:
    made = Celery("traced", broker="memory://", set_as_current=False)
    # Every app of the process shares kombu's memory: another's messages are in its "celery".
    made.conf.task_default_queue = uuid.uuid4().hex

    @made.task(base=BatchTask, model="gpt-5-mini", name="traced.one", shared=False)
    def one(text: str) -> str:
        return text

    made.finalize()
    made.set_current()
    return made


def sent(app: Celery) -> dict[str, object]:
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(app.conf.task_default_queue).get(timeout=5)
        message.ack()
        return dict(message.headers)


def test_a_call_carries_the_trace_it_is_made_in(app, spans) -> None:
    with trace.get_tracer("test").start_as_current_span("checkout") as outer:
        app.tasks["traced.one"].delay("hello")

    parent = str(sent(app)["traceparent"])

    assert format(outer.get_span_context().trace_id, "032x") in parent
    send = spans()["traced.one send"]
    assert send.kind is trace.SpanKind.PRODUCER
    assert send.parent.span_id == outer.get_span_context().span_id


def test_many_calls_carry_it_together(app, spans) -> None:
    app.tasks["traced.one"].delay_many(["a", "b", "c"])

    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(app.conf.task_default_queue).get(timeout=5)
        message.ack()
    common = message.payload[0][1]

    assert "traceparent" in common["headers"]
    assert spans()["traced.one send"].attributes["lowtide.calls"] == 3


def finished(tmp_path, headers, *, failed: bool = False):
    clock = SimulatedClock(1_000_000.0)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock)
    ledger.create()
    clock.advance(10)
    ids = record_batch(ledger, "b1", requests=1, at=clock.now())
    deliver_batch(ledger, clock, "b1", ids, took=500)
    batch = ledger.batch("b1")
    assert batch is not None
    lane, body, tokens = encode(chat("secret words", model="gpt-5-mini"), account="default")
    envelope = Envelope(
        body=Body.of(["secret words"], {}, {}, "json").data,
        accepted_at=1_000_000.0,
        headers=headers,
    )
    request = Request("c1", "t1", "traced.one", lane, body, envelope.pack(), tokens)
    outcome = (
        Outcome("c1", RequestState.FAILED, error_code="invalid_prompt")
        if failed
        else Outcome("c1", RequestState.DELIVERED, input_tokens=7, output_tokens=9, cost=0.5)
    )
    tracing.finished(batch, {"c1": request}, [outcome], clock.now())
    ledger.close()
    return batch


def test_the_result_is_in_the_same_trace(app, spans, tmp_path) -> None:
    headers = tracing.carried("traced.one")
    finished(tmp_path, headers)

    seen = spans()
    root = seen["traced.one"]
    assert root.parent.span_id == seen["traced.one send"].get_span_context().span_id
    assert root.attributes["gen_ai.usage.output_tokens"] == 9
    assert root.attributes["lowtide.provider_batch"] == "batch_b1"
    parts = [seen[name] for name in ("buffer", "submit", "provider", "deliver")]
    assert {part.parent.span_id for part in parts} == {root.get_span_context().span_id}
    assert [part.end_time for part in parts[:-1]] == [part.start_time for part in parts[1:]]
    assert seen["provider"].end_time - seen["provider"].start_time == 500 * 10**9
    assert (parts[0].start_time, parts[-1].end_time) == (root.start_time, root.end_time)
    assert "secret words" not in repr([span.to_json() for span in seen.values()])


def test_a_failure_is_marked(spans, tmp_path) -> None:
    finished(tmp_path, None, failed=True)

    root = spans()["traced.one"]
    assert root.status.status_code is trace.StatusCode.ERROR
    assert root.attributes["error.type"] == "invalid_prompt"


def test_without_opentelemetry_nothing_is_carried(monkeypatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "opentelemetry.trace")

    assert tracing.carried("traced.one") == {}
