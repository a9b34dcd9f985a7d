"""An answer: what the provider sent back for one call, read the same way for every endpoint."""

from __future__ import annotations

import base64
import binascii
from array import array
from typing import TYPE_CHECKING, Any

from lowtide import schema
from lowtide.calls import COMPLETIONS, EMBEDDINGS, IMAGES, MODERATIONS, RESPONSES
from lowtide.errors import ContentFiltered, InvalidAnswer, Refused, Truncated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel, ValidationError

_SHOWN_ERRORS = 5
# Endpoints whose answers are lists, and the property that gives the list.
_SEVERAL = {
    EMBEDDINGS: "embeddings",
    MODERATIONS: "judgements",
    IMAGES: "images",
    COMPLETIONS: "texts",
}
# Calls of the provider's own tools: made already, their use is in the answer.
_MADE = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "web_search_call",
    }
)
_UNFIT = {
    "refusal": (Refused, "The model refused to answer."),
    "content_filter": (ContentFiltered, "A content filter cut the answer off."),
    "length": (Truncated, "The answer was cut off at the most tokens that it may have."),
}
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


class Answer:
    """The answer to one call.

    Args:
        endpoint: The call's endpoint.
        body: The API's response body, as it came.
        output: Pydantic model that the text has to validate against, if any.
    """

    __slots__ = ("_parsed", "body", "endpoint", "output")

    def __init__(
        self, endpoint: str, body: dict[str, Any], output: type[BaseModel] | None = None
    ) -> None:
        self.endpoint = endpoint
        self.body = body
        self.output = output
        self._parsed: BaseModel | None = None

    def __repr__(self) -> str:
        # Never the text: reprs end in logs and tracebacks.
        return f"<Answer of {self.endpoint} by {self.model}: {self.finish_reason}>"

    @property
    def text(self) -> str:
        """What the model wrote; "" when it wrote nothing (a refusal, only tool calls)."""
        if self.endpoint == RESPONSES:
            parts = self._parts("output_text", "text")
            return "".join(parts)
        content = self._message.get("content")
        if content is None:
            content = self._choice.get("text")
        return content if isinstance(content, str) else "".join(_texts(content))

    @property
    def parsed(self) -> BaseModel:
        """The text as an instance of the call's `output` model.

        Raises:
            InvalidAnswer: The model refused (`Refused`), was cut off (`Truncated`,
                `ContentFiltered`), or wrote what does not validate (code "invalid_output").
            TypeError: The call has no `output` model.
        """
        if self._parsed is None:
            self._parsed = self._validate()
        return self._parsed

    def raise_for(self, *reasons: str) -> None:
        """Raises when the answer is of no use for one of these reasons.

        Args:
            reasons: "refusal", "content_filter" or "length".

        Raises:
            Refused: The model declined to answer.
            ContentFiltered: A content filter cut the answer off.
            Truncated: It was cut off at the most tokens that it may have.
        """
        # A list: what a service puts there need not be hashable.
        ends = [choice.get("finish_reason") for choice in _dicts(self.body.get("choices"))]
        ends.append(self.finish_reason)
        for reason in reasons:
            if (self.refusal is not None) if reason == "refusal" else reason in ends:
                raise self._invalid(reason, _UNFIT[reason][1])

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts under the endpoint's own names; empty when the provider gave none."""
        found = self.body.get("usage")
        return found if isinstance(found, dict) else {}

    @property
    def model(self) -> str | None:
        """The model that answered, as the provider names it."""
        found = self.body.get("model")
        return found if isinstance(found, str) else None

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped: "stop", "length", "content_filter", "tool_calls" and others."""
        if self.endpoint != RESPONSES:
            found = self._choice.get("finish_reason")
            return found if isinstance(found, str) else None
        if self.body.get("status") == "completed":
            return "tool_calls" if self.tool_calls else "stop"
        details = self.body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return _INCOMPLETE.get(str(reason), str(reason or self.body.get("status")))

    @property
    def refusal(self) -> str | None:
        """The model's words when it declined to answer, else None."""
        if self.endpoint == RESPONSES:
            return "".join(self._parts("refusal", "refusal")) or None
        found = self._message.get("refusal")
        return found if isinstance(found, str) and found else None

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls that the model wants made, in the endpoint's own form."""
        if self.endpoint == RESPONSES:
            kinds = ((item, str(item.get("type"))) for item in self._items)
            return [item for item, kind in kinds if kind.endswith("_call") and kind not in _MADE]
        return _dicts(self._message.get("tool_calls"))

    @property
    def embedding(self) -> list[float]:
        """The vector of an embeddings call for one input.

        Raises:
            InvalidAnswer: The answer has no vector.
        """
        return self.embeddings[0]

    @property
    def embeddings(self) -> list[list[float]]:
        """The vectors of an embeddings call, in the order of its inputs.

        Raises:
            InvalidAnswer: The answer has no vectors.
        """
        rows = sorted(_dicts(self.body.get("data")), key=_index)
        if not rows:
            raise InvalidAnswer("The answer holds no embeddings.", {"code": "missing_output"})
        return [_vector(row.get("embedding")) for row in rows]

    @property
    def texts(self) -> list[str]:
        """What a completions call wrote for each of its prompts, in their order."""
        rows = sorted(_dicts(self.body.get("choices")), key=_index)
        return [text for row in rows if isinstance(text := row.get("text"), str)]

    @property
    def judgements(self) -> list[dict[str, Any]]:
        """The results of a moderations call, one for each input, with `flagged`.

        Raises:
            InvalidAnswer: The answer has none.
        """
        return self._rows("results", "moderation results")

    @property
    def images(self) -> list[dict[str, Any]]:
        """The pictures of an images call, each with `b64_json` or `url`.

        Raises:
            InvalidAnswer: The answer has none.
        """
        return self._rows("data", "images")

    def value(self, many: bool = False) -> Any:  # noqa: FBT001, FBT002 - read as value(call.many)
        """What a plain task returns: JSON values only.

        The validated object as a dict when there is an `output` model; the vector of an
        embeddings call, the judgement of a moderations call, the picture of an images call, or
        all of them with `many`; the whole message when the model answered with tool calls; the
        text otherwise. Other endpoints give the body itself.

        Raises:
            InvalidAnswer: The answer does not validate, is a refusal, or is empty of all these.
        """
        several = _SEVERAL.get(self.endpoint)
        if several is not None:
            found = getattr(self, several)
            return found if many else self._only(found)
        if self.tool_calls:
            return self._items if self.endpoint == RESPONSES else self._message
        if self.output is not None:
            return self.parsed.model_dump(mode="json")
        text = self.text
        if text:
            return text
        self.raise_for("refusal")
        return text if self._choice or self._items else self.body

    def _only(self, found: list[Any]) -> Any:
        if not found:
            raise self._invalid("missing_output", "The answer is empty.")
        return found[0]

    def _rows(self, field: str, what: str) -> list[dict[str, Any]]:
        rows = _dicts(self.body.get(field))
        if not rows:
            raise self._invalid("missing_output", f"The answer holds no {what}.")
        return rows

    @property
    def _choice(self) -> dict[str, Any]:
        return next(iter(_dicts(self.body.get("choices"))), {})

    @property
    def _message(self) -> dict[str, Any]:
        found = self._choice.get("message")
        return found if isinstance(found, dict) else {}

    @property
    def _items(self) -> list[dict[str, Any]]:
        return _dicts(self.body.get("output"))

    def _parts(self, kind: str, field: str) -> list[str]:
        """The `field` of each content part of type `kind` in the messages of a response."""
        return [
            part[field]
            for item in self._items
            if item.get("type") == "message"
            for part in _dicts(item.get("content"))
            if part.get("type") == kind and isinstance(part.get(field), str)
        ]

    def _validate(self) -> BaseModel:
        from pydantic import ValidationError

        if self.output is None:
            raise TypeError("this call has no output= model to parse its answer with")
        self.raise_for("refusal")
        try:
            return self.output.model_validate_json(self.text)
        except ValidationError as error:
            if self.finish_reason in ("length", "content_filter"):
                reason = str(self.finish_reason)
                raise self._invalid(
                    reason, f"The answer was cut off ({reason}) and does not validate."
                ) from None
            where = _where(error, schema.property_names(self.output))
            raise self._invalid(
                "invalid_output",
                f"The answer does not validate as {self.output.__name__}: {'; '.join(where)}.",
                errors=where,
            ) from None

    def _invalid(self, code: str, message: str, **details: Any) -> InvalidAnswer:
        known = {"code": code, "model": self.model, "finish_reason": self.finish_reason}
        kind = _UNFIT[code][0] if code in _UNFIT else InvalidAnswer
        if kind is not InvalidAnswer:
            known["text"] = self.refusal if code == "refusal" else self.text
        return kind(message, {**known, **details})


def _where(error: ValidationError, known: frozenset[str]) -> list[str]:
    """Place and kind of each validation error; names that the answer made up become "*"."""
    found = []
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        parts = [str(p) if isinstance(p, int) or p in known else "*" for p in each["loc"]]
        found.append(f"{'.'.join(parts) or 'the whole'} ({each['type']})")
    more = len(found) - _SHOWN_ERRORS
    return [*found[:_SHOWN_ERRORS], *([f"{more} more"] if more > 0 else [])]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(content: Any) -> Iterator[str]:
    """Some compatible services give a chat message's content as parts."""
    for part in _dicts(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def _index(row: dict[str, Any]) -> int:
    found = row.get("index")
    return found if isinstance(found, int) else 0


def _vector(value: Any) -> list[float]:
    """A vector given as numbers or as base64 of little-endian 32-bit floats."""
    if isinstance(value, str):
        try:
            floats = array("f", base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            floats = array("f")
        value = floats.tolist()
    good = isinstance(value, list) and value
    if not good or not all(isinstance(number, int | float) for number in value):
        raise InvalidAnswer("An embedding is not a list of numbers.", {"code": "invalid_output"})
    return list(value)
