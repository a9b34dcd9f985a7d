"""Moderation of what is about to be sent: which calls judge it, and what they say."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lowtide.calls import CHAT, PROMPT_FIELD, RESPONSES, Call, moderate
from lowtide.errors import Flagged

if TYPE_CHECKING:
    from lowtide.answer import Answer

MODEL = "omni-moderation-latest"
# What the app itself says is not what a stranger sent.
_OWN_ROLES = frozenset({"system", "developer"})


def checked(call: Call, *, model: str = MODEL) -> Generator[Call, Answer, Answer]:
    """Asks for a call's answer after a moderation model has seen its input.

    Use it in a generator task: `answer = yield from checked(chat(text))`. The judgement is one
    more request in one more batch, which OpenAI does not bill.

    Args:
        call: What is to be sent if nothing is wrong with it.
        model: The moderation model.

    Raises:
        Flagged: The input was flagged; the call was not sent, and costs nothing.
    """
    for check in checks_of(call, model=model):
        judge((yield check))
    answer = yield call
    return answer


def checks_of(call: Call, *, model: str = MODEL) -> list[Call]:
    """The moderation calls that judge a call's input: one for all its texts, one for each image.

    Instructions of the app itself (`system`, `developer`, `instructions`) are left out.
    """
    texts: list[str] = []
    images: list[str] = []
    for kind, value in _given(call):
        (texts if kind == "text" else images).append(value)
    checks = [moderate(texts, model=model)] if texts else []
    return checks + [
        moderate([{"type": "image_url", "image_url": {"url": url}}], model=model) for url in images
    ]


def judge(answer: Answer) -> None:
    """Raises when a moderation model flagged something.

    Raises:
        Flagged: `details["categories"]` names what for, separated by commas.
        InvalidAnswer: The answer holds no judgement.
    """
    found = [each for each in answer.judgements if each.get("flagged")]
    if not found:
        return
    categories: set[str] = set()
    for each in found:
        named = each.get("categories")
        if isinstance(named, Mapping):
            categories |= {str(name) for name, hit in named.items() if hit}
    listed = ", ".join(sorted(categories)) or "no category named"
    raise Flagged(
        f"The input was flagged by {answer.model} ({listed}) and not sent.",
        {"code": "flagged", "categories": listed, "model": answer.model},
    )


def _given(call: Call) -> Iterator[tuple[str, str]]:
    """("text" or "image", text or URL) of each part of the input, in order."""
    value = call.body.get(PROMPT_FIELD.get(call.endpoint, "input"))
    if isinstance(value, str):
        value = [value]
    for item in value if isinstance(value, list | tuple) else ():
        if isinstance(item, str) and item.strip():
            yield "text", item
        elif isinstance(item, Mapping) and item.get("role") not in _OWN_ROLES:
            yield from _parts(item, call.endpoint)


def _parts(message: Mapping[str, Any], endpoint: str) -> Iterator[tuple[str, str]]:
    """The texts and images of one message of a chat, or one input item of a response."""
    content = message.get("content") if endpoint in (CHAT, RESPONSES) else message
    if isinstance(content, str):
        content = [{"text": content}]
    for part in content if isinstance(content, list | tuple) else [content]:
        if not isinstance(part, Mapping):
            continue
        text, image = part.get("text"), part.get("image_url")
        if isinstance(image, Mapping):
            image = image.get("url")
        if isinstance(text, str) and text.strip():
            yield "text", text
        if isinstance(image, str) and image:
            yield "image", image
