"""Answers of ``/v1/responses``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from lowtide.simulator.answers.models import snapshot
from lowtide.simulator.answers.prompt import content_text
from lowtide.simulator.answers.reply import json_schema_of, number_in, reply, tool_arguments
from lowtide.simulator.answers.usage import Tokens, count, cut, response_usage
from lowtide.simulator.errors import ApiError, invalid_type, missing

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def response(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer a Responses request.

    Raises:
        ApiError: 400 for parameters that the service refuses.
    """
    system, user = _input(body)
    wanted = body.get("text")
    if wanted is not None and not isinstance(wanted, Mapping):
        raise invalid_type("text", "an object", wanted)
    schema, as_json = json_schema_of((wanted or {}).get("format"), "text.format")
    number_in(body, "temperature", 0, 2)
    number_in(body, "top_p", 0, 1)
    number_in(body, "max_output_tokens", 16, 1_000_000)
    item = _tool_call(body, user)
    was_cut = False
    if item is None:
        answer = reply(system, user, schema, as_json=as_json)
        answer, was_cut = cut(answer, body.get("max_output_tokens"))
        item = _message(answer, was_cut=was_cut)
    else:
        answer = item["arguments"]
    tokens = Tokens(count(system) + count(user) + 7, count(answer))
    echoed = {k: d if body.get(k) is None else body[k] for k, d in _ECHOED.items()}
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(now),
        "completed_at": int(now),
        "status": "incomplete" if was_cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if was_cut else None,
        "model": snapshot(str(body["model"])),
        "output": [item],
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "flex" if body.get("service_tier") == "flex" else "default",
        "store": body.get("store") is not False,
        "text": {"format": (wanted or {}).get("format") or {"type": "text"}},
        "usage": response_usage(tokens),
        **echoed,
    }, tokens


def _message(answer: str, *, was_cut: bool) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(24)}",
        "type": "message",
        "status": "incomplete" if was_cut else "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": answer, "annotations": [], "logprobs": []}],
    }


def _input(body: Mapping[str, Any]) -> tuple[str, str]:
    given = body.get("input")
    if given is None:
        raise missing("input")
    system = [str(body["instructions"])] if body.get("instructions") else []
    if isinstance(given, str):
        return "\n".join(system), given
    if not isinstance(given, list):
        raise invalid_type("input", "a string or an array of objects", given)
    user: list[str] = []
    for index, item in enumerate(given):
        if not isinstance(item, Mapping):
            raise invalid_type(f"input[{index}]", "an object", item)
        role = item.get("role", "user")
        if role != "assistant":
            text = content_text(item.get("content") or item.get("output"))
            (system if role in ("system", "developer") else user).append(text)
    return "\n".join(system), "\n\n".join(user)


def _tool_call(body: Mapping[str, Any], user: str) -> dict[str, Any] | None:
    choice = body.get("tool_choice")
    tools = [t for t in body.get("tools") or [] if t.get("type") == "function"]
    if isinstance(choice, Mapping):
        tools = [tool for tool in tools if tool.get("name") == choice.get("name")]
    elif choice != "required":
        return None
    if not tools:
        raise ApiError(400, "Invalid 'tool_choice': no such tool.", param="tool_choice")
    return {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(24)}",
        "call_id": f"call_{secrets.token_hex(12)}",
        "name": tools[0].get("name", ""),
        "arguments": tool_arguments(tools[0].get("parameters"), user),
        "status": "completed",
    }
