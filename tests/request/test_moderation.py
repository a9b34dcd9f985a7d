"""Moderation: what is judged, and what a judgement does."""

from __future__ import annotations

from typing import Any

import pytest

from lowtide import Answer, Call, chat, complete, embed, image, moderate, respond
from lowtide.errors import Flagged, InvalidAnswer
from lowtide.moderation import MODEL, checked, checks_of, judge

PICTURE = "data:image/png;base64,AA=="


def inputs(call: Call) -> list[Any]:
    return [check.body["input"] for check in checks_of(call)]


def picture(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (chat("hello", system="Be kind."), [["hello"]]),
        (chat([{"role": "developer", "content": "x"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]), [["a", "b"]]),
        (chat([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PICTURE}}]}]), [["a"], picture(PICTURE)]),
        (respond("hello", instructions="Be kind."), [["hello"]]),
        (respond([{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PICTURE}]}]), [["a"], picture(PICTURE)]),
        (embed(["a", "b"]), [["a", "b"]]),
        (complete("a"), [["a"]]),
        (image("a"), [["a"]]),
        (moderate(picture(PICTURE)), [picture(PICTURE)]),
        (chat([{"role": "assistant", "tool_calls": []}, {"role": "user", "content": " "}]), []),
        (chat([{"role": "user", "content": [None, "x", {"type": "text", "text": 5}]}]), []),
        (embed([1, 2, 3]), []),  # type: ignore[list-item]
    ],
)  # fmt: skip
def test_what_is_judged(call: Call, expected: list[Any]) -> None:
    assert inputs(call) == expected
    assert {check.body["model"] for check in checks_of(call)} <= {MODEL}


def judged(*flagged: bool, **body: Any) -> Answer:
    results = [
        {"flagged": each, "categories": {"violence": each, "hate": each, "self-harm": False}}
        for each in flagged
    ]
    return Answer("/v1/moderations", {"model": "omni-1", "results": results, **body})


def test_nothing_flagged_passes() -> None:
    judge(judged(False, False))


def test_one_flagged_input_is_enough() -> None:
    with pytest.raises(Flagged) as caught:
        judge(judged(False, True))

    assert caught.value.details == {
        "code": "flagged",
        "categories": "hate, violence",
        "model": "omni-1",
    }
    assert "hate, violence" in str(caught.value)


def test_a_judgement_that_is_none_does_not_pass() -> None:
    with pytest.raises(InvalidAnswer):
        judge(Answer("/v1/moderations", {"results": []}))


def test_the_call_is_made_after_every_check() -> None:
    call = chat([{"role": "user", "content": [{"type": "text", "text": "a"}, *picture(PICTURE)]}])
    steps = checked(call)
    final = Answer("/v1/chat/completions", {})

    assert next(steps).body["input"] == ["a"]
    assert steps.send(judged(False)).body["input"] == picture(PICTURE)
    assert steps.send(judged(False)) is call
    with pytest.raises(StopIteration) as end:
        steps.send(final)
    assert end.value.value is final
