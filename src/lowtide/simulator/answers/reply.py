"""The text, or the tool call, that answers a prompt: shared by chat, responses and completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lowtide.simulator.answers import labels
from lowtide.simulator.answers.prompt import Prompt, split
from lowtide.simulator.answers.schema import conforming
from lowtide.simulator.answers.text import sentences, summary
from lowtide.simulator.errors import ApiError, invalid_type, invalid_value


def reply(system: str, user: str, schema: Mapping[str, Any] | None, *, as_json: bool) -> str:
    """Answer a prompt.

    Args:
        system: system, developer or ``instructions`` text.
        user: what the user says.
        schema: a JSON schema that the answer has to conform to.
        as_json: an object is wanted, with no schema for it.

    Returns:
        JSON text for structured output, a label for a classification, the text itself for a
        translation (nothing here speaks languages), else an extractive summary.
    """
    prompt = split(system, user)
    if schema is not None:
        return orjson.dumps(conforming(schema, prompt.text)).decode()
    if as_json:
        return orjson.dumps({"answer": plain(prompt)}).decode()
    return plain(prompt)


def plain(prompt: Prompt) -> str:
    """The answer in plain text."""
    choice = prompt.labels
    if choice and not prompt.wants("summar"):
        return labels.pick(choice, prompt.text)
    if prompt.wants("translat", "übersetz"):
        return prompt.text.strip() or "."
    if prompt.wants("list ", "bullet", "key points"):
        points = sentences(summary(prompt.text, prompt.max_words))
        return "\n".join(f"- {point}" for point in points) or "-"
    return summary(prompt.text, prompt.max_words) or "."


def json_schema_of(form: Any, param: str) -> tuple[Mapping[str, Any] | None, bool]:
    """Read ``response_format`` (chat) or ``text.format`` (responses).

    Returns:
        The schema, if one is given, and whether any JSON object is wanted.

    Raises:
        ApiError: 400 for a wrong type, name or shape.
    """
    if form is None:
        return None, False
    if not isinstance(form, Mapping):
        raise invalid_type(param, "an object", form)
    kind = form.get("type")
    if kind == "text":
        return None, False
    if kind == "json_object":
        return None, True
    if kind != "json_schema":
        raise invalid_value(
            f"{param}.type",
            f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', "
            "and 'text'.",
        )
    inner = form.get("json_schema", form)
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ApiError(
            400,
            f"Missing required parameter: '{param}.json_schema.schema'.",
            param=f"{param}.json_schema.schema",
            code="missing_required_parameter",
        )
    return schema, False


def tool_arguments(parameters: Any, user: str) -> str:
    """JSON text of arguments for a function, conforming to its schema."""
    schema = parameters if isinstance(parameters, Mapping) else {"type": "object"}
    return orjson.dumps(conforming(schema, user)).decode()


def number_in(body: Mapping[str, Any], name: str, low: float, high: float) -> None:
    """Check an optional number.

    Raises:
        ApiError: 400 when it is no number, or out of range.
    """
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise invalid_type(name, "a number", value)
    if value < low:
        raise ApiError(
            400,
            f"Invalid '{name}': expected a value >= {low:g}, but got {value} instead.",
            param=name,
            code="integer_below_min_value" if isinstance(value, int) else "decimal_below_min_value",
        )
    if value > high:
        raise ApiError(
            400,
            f"Invalid '{name}': expected a value <= {high:g}, but got {value} instead.",
            param=name,
            code="integer_above_max_value" if isinstance(value, int) else "decimal_above_max_value",
        )
