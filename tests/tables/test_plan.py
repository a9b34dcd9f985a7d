"""What a row becomes: a column's text, or a prompt with the row's values in it."""

from __future__ import annotations

import pytest

from lowtide.tables import Plan, TableError

ROW = {"name": "Ada", "age": 36, "note": None, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Greet {name}.", "Greet Ada."),
        ("{ name }, {age}: {tags}", 'Ada, 36: ["a","b"]'),
        ('{{"name": "{name}"}}', '{"name": "Ada"}'),
        ("{name}{note}!", "Ada!"),
        ("{note}", ""),
    ],
)
def test_places_are_filled(prompt, text):
    assert Plan(prompt=prompt).text(ROW) == text


def test_a_value_with_braces_is_not_filled_again():
    assert Plan(prompt="{a}").text({"a": "{b}", "b": "secret"}) == "{b}"


def test_a_column_is_the_first_argument():
    plan = Plan(task="tasks.summarize", column="name", options={"max_words": 9})

    assert plan.call(ROW) == (["Ada"], {"max_words": 9})
    assert plan.call({"name": "  "}) is None


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan(column="nam"), "no column 'nam'; it has: name, age"),
        (Plan(prompt="Hello {who}"), "no column 'who'"),
        (Plan(prompt="Hello"), "names no column"),
        (Plan(), "one of them"),
        (Plan(column="name", prompt="{name}"), "one of them"),
    ],
)
def test_a_plan_that_does_not_fit(plan, told):
    with pytest.raises(TableError, match=told):
        plan.check(["name", "age"])


def test_answers_from_before_are_written_over():
    plan = Plan(column="name")

    assert plan.output_columns(["name", "answer", "x"]) == ["name", "x", "answer", "error"]
