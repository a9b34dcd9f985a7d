"""Every kind of input and every endpoint, by a batch through a worker and at once by `.apply()`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lowtide import runtime
from lowtide.errors import Flagged
from lowtide.simulator import Steering
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.inputs.app"
DATA = "data:image/png;base64," + base64.b64encode(b"\x89PNG" * 30_000).decode()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("inputs"), redis.url) as stack:
        stack.worker(MODULE)
        yield stack
    redis.stop()


@pytest.fixture(scope="module")
def tasks(stack: Stack) -> Any:
    client = client_of(MODULE)
    stack.ready(client.app)
    return client


def by_batch(task: Any, *args: Any) -> Any:
    return task.delay(*args).get(timeout=60)


def at_once(task: Any, *args: Any) -> Any:
    return task.apply(args=args).get()


both = pytest.mark.parametrize("ask", [by_batch, at_once])
Ask = Callable[..., Any]


@both
@pytest.mark.parametrize("url", ["https://example.org/ferry.png", DATA], ids=["url", "data"])
def test_an_image(tasks: Any, ask: Ask, url: str) -> None:
    assert ask(tasks.picture, url) == tasks.TEXT


@both
def test_a_file(tasks: Any, ask: Ask) -> None:
    assert ask(tasks.file, "data:application/pdf;base64,JVBERi0=") == tasks.TEXT


@both
@pytest.mark.parametrize("url", ["https://example.org/ferry.png", DATA], ids=["url", "data"])
def test_images_and_files_of_a_response(tasks: Any, ask: Ask, url: str) -> None:
    file = "data:application/pdf;base64,JVBERi0="

    assert ask(tasks.response_parts, url, file) == tasks.TEXT


def test_data_urls_count_in_bytes(stack: Stack, tasks: Any) -> None:
    result = tasks.picture.delay(DATA)
    result.get(timeout=60)

    rt = runtime.of(tasks.app)
    [row] = rt.ledger.task(result.id)
    batch = rt.ledger.batch(row.batch_id)
    assert batch is not None
    assert batch.bytes > len(DATA)
    assert batch.tokens > len(DATA) // 4


@both
def test_tool_calls_are_given_back_whole(tasks: Any, ask: Ask) -> None:
    message = ask(tasks.chat_tool, "Is it raining in Utrecht?")
    items = ask(tasks.response_tool, "Is it raining in Utrecht?")

    assert message["role"] == "assistant"
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    assert [item["name"] for item in items if item["type"] == "function_call"] == ["weather"]


@both
def test_a_tool_is_called_and_the_model_asked_again(tasks: Any, ask: Ask) -> None:
    name, text = ask(tasks.tool_loop, "Is it raining in Utrecht?")

    assert name == "weather"
    assert text


@both
def test_a_reasoning_model(tasks: Any, ask: Ask) -> None:
    assert ask(tasks.reasoning, tasks.TEXT) == tasks.TEXT


@both
def test_completions(tasks: Any, ask: Ask) -> None:
    assert ask(tasks.completion, tasks.TEXT) == tasks.TEXT
    assert ask(tasks.completion, ["One lamp is lit.", "Two are not."]) == [
        "One lamp is lit.",
        "Two are not.",
    ]


@both
def test_images_are_made(tasks: Any, ask: Ask) -> None:
    one = ask(tasks.painting, "A blue ferry")
    two = ask(tasks.painting, "A blue ferry", 2)

    assert base64.b64decode(one["b64_json"]).startswith(b"\x89PNG")
    assert len(two) == 2


@both
def test_moderations(tasks: Any, ask: Ask) -> None:
    one = ask(tasks.judgement, "I will kill you.")
    two = ask(tasks.judgement, ["A quiet day.", "I will kill you."])

    assert one["flagged"]
    assert [each["flagged"] for each in two] == [False, True]


@both
def test_a_flagged_input_is_not_sent(stack: Stack, tasks: Any, ask: Ask) -> None:
    assert ask(tasks.careful, tasks.TEXT) == tasks.TEXT
    before = Steering(stack.simulator.root).totals()["billed"]

    with pytest.raises(Flagged, match="violence") as caught:
        ask(tasks.careful, "I will kill you.")

    assert caught.value.code == "flagged"
    after = Steering(stack.simulator.root).totals()["billed"]
    assert after - before == 1  # the judgement alone


def booked(tasks: Any, result: Any) -> Any:
    """The last request of a call in the ledger, once its outcome is there."""
    ledger = runtime.of(tasks.app).ledger
    return until(lambda: (rows := ledger.task(result.id)) and rows[-1].done_at and rows[-1], "end")


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("picture", [DATA]),
        ("response_parts", [DATA, "data:application/pdf;base64,JVBERi0="]),
        ("chat_tool", ["Is it raining?"]),
        ("reasoning", ["The sea is wide."]),
        ("completion", ["The sea is wide."]),
        ("vector", ["The sea is wide."]),
    ],
)
def test_each_answer_is_booked_at_the_batch_price_and_what_it_saved(
    tasks: Any, task: str, args: list[Any]
) -> None:
    result = getattr(tasks, task).delay(*args)
    result.get(timeout=60)

    row = booked(tasks, result)

    assert row.tier == "batch"
    assert row.input_tokens
    if task == "completion":
        # genai-prices has no batch price for so old a model: not known, and never 0.
        assert row.cost is None
        assert row.full_price
    else:
        assert row.cost == pytest.approx(row.full_price / 2)
        [cost] = [c for c in _costs(tasks) if c.key == f"inputs.{task}"]
        assert cost.saving == pytest.approx(cost.full_price - cost.cost)


@pytest.mark.parametrize(
    ("task", "args"), [("painting", ["A blue ferry"]), ("judgement", ["A quiet day."])]
)
def test_what_is_not_priced_by_tokens_is_unknown_and_never_0(
    tasks: Any, task: str, args: list[Any]
) -> None:
    result = getattr(tasks, task).delay(*args)
    result.get(timeout=60)

    row = booked(tasks, result)

    assert (row.cost, row.full_price) == (None, None)
    [cost] = [c for c in _costs(tasks) if c.key == f"inputs.{task}"]
    assert cost.unpriced == cost.answered


def test_an_escalated_answer_is_booked_at_the_standard_price(stack: Stack, tasks: Any) -> None:
    steering = Steering(stack.simulator.root)
    steering.add_fault("stuck", count=1, share=0.0)
    try:
        result = tasks.hurried.delay("The sea is wide.")
        assert result.get(timeout=60) == "The sea is wide."
    finally:
        steering.clear_faults()

    row = booked(tasks, result)

    assert row.tier == "standard"
    assert row.cost
    assert row.cost == row.full_price
    [cost] = [c for c in _costs(tasks) if c.key == "inputs.hurried"]
    assert (cost.saving, cost.wasted) == (0.0, 0.0)


def _costs(tasks: Any) -> Any:
    return runtime.of(tasks.app).ledger.costs("task")
