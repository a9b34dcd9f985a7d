"""The ready-made tasks, run at once through the simulator's synchronous API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from tasks.classify import classify
from tasks.embed import embed
from tasks.extract import extract
from tasks.moderate import moderate
from tasks.summarize import parts, summarize
from tasks.translate import translate
from tests.plugins.stack import ROOT, Simulator

TEXT = """Lighthouses guide ships along the coast at night. The lighthouse of Ushant was built in
1863 and its lamp reaches 59 kilometres. Keepers lived there until 1991, when the lamp became
automatic. Today it also measures wind and waves for the weather service. Visitors may climb its
tower in summer. The museum in its engine room shows the history of lamps and lenses."""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    started = Simulator(tmp_path_factory.mktemp("simulator"))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def app(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setenv("OPENAI_API_KEY", "simulator")
    monkeypatch.setenv("OPENAI_BASE_URL", simulator.base_url)
    app = Celery("ready-made", broker="memory://", backend="cache+memory://")
    app.set_current()
    return app


def at_once(task: Any, *args: Any) -> Any:
    return task.apply(args=args).get()


def words(text: str) -> int:
    return len(text.split())


def test_summarize_gives_a_shorter_text_of_what_is_there():
    summary = at_once(summarize, TEXT, 20)

    assert 3 <= words(summary) <= 25
    assert any(fact in summary for fact in ("Ushant", "ighthouse", "Keepers", "lamp"))


def test_a_short_text_is_one_request_of_the_tasks_own_model():
    call = summarize.build(TEXT)

    assert (summarize.name, call.endpoint) == ("tasks.summarize", "/v1/chat/completions")
    assert call.body["messages"][1]["content"].endswith(f"<text>\n{TEXT}\n</text>")
    assert "at most 60 words" in call.body["messages"][1]["content"]


def test_a_long_text_is_summarised_in_parts_and_then_as_a_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.summarize.PART", 1_000)
    monkeypatch.setattr(parts, "__defaults__", (1_000,))
    long = "\n\n".join(f"{TEXT} Chapter {n} tells of storm number {n}." for n in range(6))

    steps = summarize.build(long, 20)
    asked = [next(steps)]
    try:
        while True:
            asked.append(steps.send(type("Answer", (), {"text": f"Notes {len(asked)}."})()))
    except StopIteration as end:
        result = end.value

    given = "".join(call.body["messages"][1]["content"] for call in asked)
    assert len(asked) == len(list(parts(long, 1_000))) + 1
    assert all(f"storm number {n}." in given for n in range(6))
    assert "<before>\nNotes 1.\n</before>" in asked[1].body["messages"][1]["content"]
    assert result == f"Notes {len(asked)}."
    assert words(at_once(summarize, long, 20)) <= 25


@given(st.text(st.sampled_from("ab .\n"), max_size=200), st.integers(2, 50))
def test_parts_lose_nothing_and_keep_to_their_size(text: str, size: int):
    pieces = list(parts(text, size))

    assert "".join(pieces) == text
    assert all(len(piece) <= size for piece in pieces)
    assert len(pieces) <= 2 * len(text) // size + 1


def test_parts_are_cut_at_paragraphs_where_there_are_any():
    assert list(parts("aaaa aaaa\n\nbb bb cc", 14)) == ["aaaa aaaa\n\n", "bb bb cc"]


def test_classify_gives_a_label_as_it_is_written():
    labels = ["Bug report", "Billing", "Praise"]

    assert (
        at_once(classify, "The invoice charged my card twice, I want a refund.", labels)
        == "Billing"
    )
    assert at_once(classify, "The app crashed with an error again.", labels) == "Bug report"


def test_the_schema_of_classify_allows_the_labels_alone():
    call = next(classify.build("x", ["b", "a", "b"]))
    completed = classify.to_call(call)

    schema = completed.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == ["b", "a"]
    assert classify.to_call(next(classify.build("y", ["b", "a"]))).output is completed.output


def test_extract_has_the_fields_that_were_asked_for():
    fields = {"e-mail": "The customer's e-mail address", "model_dump": "Any name is fine"}

    found = at_once(extract, "Please write to ann@example.org about order 7.", fields)

    assert list(found) == ["e-mail", "model_dump"]
    assert all(value is None or isinstance(value, str) for value in found.values())


def test_extract_tells_the_model_what_each_field_means():
    call = extract.to_call(next(extract.build("x", {"total": "Sum with currency"})))

    schema = call.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["total"]["description"] == "Sum with currency"
    assert schema["required"] == ["total"]
    assert schema["additionalProperties"] is False


def test_translate_asks_for_the_language():
    call = translate.build("Guten Tag", "pt-BR")

    assert "into pt-BR" in call.body["messages"][1]["content"]
    assert at_once(translate, "Guten Tag", "English")


def test_embed_gives_a_vector_for_a_text_and_vectors_for_a_list():
    one = at_once(embed, "lamp")
    many = at_once(embed, ["lamp", "lens"])

    assert isinstance(one[0], float)
    assert many[0] == pytest.approx(one)
    assert len(many) == 2


def test_moderate_judges_a_text_or_each_of_a_list():
    one = at_once(moderate, "I will kill you.")
    two = at_once(moderate, ["A lamp.", "I will kill you."])

    assert one["flagged"]
    assert one["categories"]["violence"]
    assert [each["flagged"] for each in two] == [False, True]


@pytest.mark.parametrize(
    ("task", "args", "match"),
    [
        (summarize, (" ",), "text is empty"),
        (summarize, ("x", 0), "at least 1"),
        (classify, ("x", ["a", "a"]), "two or more labels"),
        (classify, ("x", "ab"), "two or more labels"),
        (classify, ("", ["a", "b"]), "text is empty"),
        (extract, ("x", {}), "dict of field names"),
        (extract, ("", {"a": "b"}), "text is empty"),
        (translate, ("", "German"), "text is empty"),
        (translate, ("x", " "), "names no language"),
        (embed, ("",), "is empty"),
        (embed, ([],), "is empty"),
        (embed, (["a", " "],), "is empty"),
        (moderate, ("",), "is empty"),
        (moderate, ([],), "is empty"),
    ],
)
def test_input_that_asks_for_nothing_fails_before_it_costs_anything(
    task: Any, args: tuple[Any, ...], match: str
):
    with pytest.raises(ValueError, match=match):
        at_once(task, *args)


def _defaults(**environment: str) -> subprocess.CompletedProcess[str]:
    script = "import json; from tasks import defaults as d; print(json.dumps([d.MODEL, d.EMBEDDING_MODEL, d.PARAMS]))"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["gpt-5-mini", "text-embedding-3-small", {"reasoning_effort": "low"}]),
        ({"TASKS_MODEL": "gpt-4.1", "TASKS_EMBEDDING_MODEL": "e"}, ["gpt-4.1", "e", {}]),
        (
            {"TASKS_MODEL": "", "TASKS_PARAMS": '{"n": 1}'},
            ["gpt-5-mini", "text-embedding-3-small", {"n": 1}],
        ),
    ],
)
def test_models_come_from_the_environment(environment: dict[str, str], expected: list[Any]):
    done = _defaults(**environment)

    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("value", ["{", "[1]"])
def test_parameters_that_are_no_json_object_say_so(value: str):
    done = _defaults(TASKS_PARAMS=value)

    assert "TASKS_PARAMS is not" in done.stderr.splitlines()[-1]


def test_the_tasks_use_the_public_api_alone():
    for path in (ROOT / "tasks").glob("*.py"):
        source = Path(path).read_text()
        assert "import lowtide" not in source
        assert "from lowtide." not in source
