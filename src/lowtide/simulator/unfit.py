"""Answers that are paid for and of no use: declined, filtered, or not in the form asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_DECLINED = "I'm sorry, but I can't help with that."
_PROSE = "Sure! Here is what you asked for."


def spoil(kind: str, line: Mapping[str, Any]) -> None:
    """Makes the answer in a result line one of `KINDS`; lines without an answer stay."""
    response = line.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    if isinstance(body, dict):
        KINDS[kind](body)


def _refuse(body: dict[str, Any]) -> None:
    for choice in _choices(body):
        choice["message"] |= {"content": None, "refusal": _DECLINED}
    for message in _messages(body):
        message["content"] = [{"type": "refusal", "refusal": _DECLINED}]


def _filter(body: dict[str, Any]) -> None:
    for choice in _choices(body):
        text = choice["message"].get("content") or ""
        choice["message"]["content"] = text[: len(text) // 2]
        choice["finish_reason"] = "content_filter"
    for message in _messages(body):
        for part in message["content"]:
            part["text"] = part["text"][: len(part["text"]) // 2]
        body |= {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}


def _chatter(body: dict[str, Any]) -> None:
    for choice in _choices(body):
        choice["message"]["content"] = _PROSE
    for message in _messages(body):
        for part in message["content"]:
            part["text"] = _PROSE


def _choices(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The choices of a chat."""
    for choice in body.get("choices") or ():
        if isinstance(choice.get("message"), dict):
            yield choice


def _messages(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The messages of a response."""
    for item in body.get("output") or ():
        if item.get("type") == "message":
            yield item


KINDS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "refusal": _refuse,
    "filtered": _filter,
    "wrong_form": _chatter,
}
