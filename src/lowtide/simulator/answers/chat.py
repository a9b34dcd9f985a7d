"""Answers of ``/v1/chat/completions`` and of the older ``/v1/completions``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from lowtide.simulator.answers.models import snapshot
from lowtide.simulator.answers.prompt import content_text
from lowtide.simulator.answers.reply import json_schema_of, number_in, reply, tool_arguments
from lowtide.simulator.answers.usage import Tokens, chat_usage, count, cut
from lowtide.simulator.errors import ApiError, invalid_type, invalid_value, missing

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def chat_completion(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer a chat request.

    Raises:
        ApiError: 400 for parameters that the service refuses.
    """
    system, user = _messages(body.get("messages"))
    schema, as_json = json_schema_of(body.get("response_format"), "response_format")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, 128)):
        number_in(body, name, low, high)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    number_in({"max_completion_tokens": limit}, "max_completion_tokens", 1, 1_000_000)
    call = _tool_call(body, user)
    text, was_cut = (
        cut(reply(system, user, schema, as_json=as_json), limit) if not call else ("", 0)
    )
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if call else text,
        "refusal": None,
        "annotations": [],
    }
    if call:
        message["tool_calls"] = [call]
    reason = "tool_calls" if call else "length" if was_cut else "stop"
    n = body.get("n") or 1
    output = count(call["function"]["arguments"] if call else text) * n
    tokens = Tokens(count(system) + count(user) + 7, output)
    return {
        "id": f"chatcmpl-{secrets.token_hex(14)}",
        "object": "chat.completion",
        "created": int(now),
        "model": snapshot(str(body["model"])),
        "choices": [
            {"index": i, "message": message, "logprobs": None, "finish_reason": reason}
            for i in range(n)
        ],
        "usage": chat_usage(tokens),
        "service_tier": _tier(body),
        "system_fingerprint": "fp_lowtide",
    }, tokens


def completion(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer a legacy completion; a list of prompts gives one choice each.

    Raises:
        ApiError: 400 when there is no prompt, or a parameter is refused.
    """
    prompt = body.get("prompt")
    if prompt is None:
        raise missing("prompt")
    prompts = prompt if isinstance(prompt, list) and prompt else [prompt]
    if isinstance(prompts[0], int):  # one prompt, given as tokens
        prompts = [prompts]
    number_in(body, "temperature", 0, 2)
    limit = body.get("max_tokens")
    number_in(body, "max_tokens", 1, 1_000_000)
    choices, used = [], 0
    for index, one in enumerate(prompts):
        if not isinstance(one, (str, list)):
            raise invalid_type("prompt", "a string or an array", one)
        text = one if isinstance(one, str) else " ".join(map(str, one))
        answer, was_cut = cut(reply("", text, None, as_json=False), limit)
        used += count(answer)
        reason = "length" if was_cut else "stop"
        choices.append({"text": answer, "index": index, "logprobs": None, "finish_reason": reason})
    tokens = Tokens(sum(count(p) if isinstance(p, str) else len(p) for p in prompts), used)
    return {
        "id": f"cmpl-{secrets.token_hex(14)}",
        "object": "text_completion",
        "created": int(now),
        "model": str(body["model"]),
        "choices": choices,
        "usage": chat_usage(tokens),
        "system_fingerprint": "fp_lowtide",
    }, tokens


def _messages(messages: Any) -> tuple[str, str]:
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise invalid_type("messages", "an array of objects", messages)
    if not messages:
        raise ApiError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.",
            param="messages",
            code="empty_array",
        )
    system: list[str] = []
    user: list[str] = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise invalid_type(f"messages[{index}]", "an object", message)
        role = message.get("role")
        if role is None:
            raise missing(f"messages[{index}].role")
        if role not in _ROLES:
            names = ", ".join(f"'{name}'" for name in _ROLES)
            raise invalid_value(
                f"messages[{index}].role",
                f"Invalid value: '{role}'. Supported values are: {names}.",
            )
        content = message.get("content")
        if content is None and role in ("user", "system", "developer"):
            raise invalid_type(f"messages[{index}].content", "a string or an array", content)
        if role != "assistant":
            (system if role in ("system", "developer") else user).append(content_text(content))
    return "\n".join(system), "\n\n".join(user)


def _tool_call(body: Mapping[str, Any], user: str) -> dict[str, Any] | None:
    """A call when the request demands one; ``auto`` is answered in words."""
    choice = body.get("tool_choice")
    tools = [t["function"] for t in body.get("tools") or [] if isinstance(t.get("function"), dict)]
    if isinstance(choice, Mapping):
        wanted = choice.get("function", {}).get("name")
        tools = [tool for tool in tools if tool.get("name") == wanted]
    elif choice != "required":
        return None
    if not tools:
        raise ApiError(400, "Invalid 'tool_choice': no such tool.", param="tool_choice")
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {
            "name": tools[0].get("name", ""),
            "arguments": tool_arguments(tools[0].get("parameters"), user),
        },
    }


def _tier(body: Mapping[str, Any]) -> str:
    tier = body.get("service_tier")
    return tier if tier in ("flex", "priority") else "default"
