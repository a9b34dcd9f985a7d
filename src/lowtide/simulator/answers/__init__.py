"""The built-in answers: real work on the request's own text, no model needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from lowtide.simulator.answers.chat import chat_completion, completion
from lowtide.simulator.answers.embeddings import embedding
from lowtide.simulator.answers.models import DEFAULT_MODERATION, exists
from lowtide.simulator.answers.moderations import moderation
from lowtide.simulator.answers.pictures import image, video
from lowtide.simulator.answers.responses import response
from lowtide.simulator.answers.usage import Tokens
from lowtide.simulator.errors import ApiError, invalid_type, missing, model_not_found

_Maker = Callable[[Mapping[str, Any], float], tuple[dict[str, Any], Tokens]]
_MAKERS: dict[str, _Maker] = {
    "/v1/chat/completions": chat_completion,
    "/v1/responses": response,
    "/v1/completions": completion,
    "/v1/embeddings": embedding,
    "/v1/moderations": moderation,
    "/v1/images/generations": image,
    "/v1/images/edits": image,
    "/v1/videos": video,
}


class Answer(NamedTuple):
    """What became of one request: HTTP status, JSON body, tokens used."""

    status: int
    body: dict[str, Any]
    tokens: Tokens


class Answerer(Protocol):
    """Whoever answers requests: the built-in, or an upstream server."""

    def answer(self, endpoint: str, body: Mapping[str, Any], now: float) -> Answer:
        """Answer one request; what the service refuses comes back as a 4xx ``Answer``."""
        ...


class BuiltIn:
    """Answers by the functions of this package.

    Args:
        models: shell patterns of the models that exist.
    """

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models

    def answer(self, endpoint: str, body: Mapping[str, Any], now: float) -> Answer:
        """Answer one request."""
        try:
            model = body.get("model")
            if model is None and endpoint == "/v1/moderations":
                body = {**body, "model": (model := DEFAULT_MODERATION)}
            if model is None:
                raise missing("model")
            if not isinstance(model, str):
                raise invalid_type("model", "a string", model)
            if not exists(model, self._models):
                raise model_not_found(model)
            made, tokens = _MAKERS[endpoint](body, now)
        except ApiError as error:
            return Answer(error.status, error.body(), Tokens(0, 0))
        return Answer(200, made, tokens)


def body_hash(body: Mapping[str, Any]) -> str:
    """A request body's fingerprint: 32 hex digits, the same whatever the order of its keys."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


__all__ = ["Answer", "Answerer", "BuiltIn", "body_hash"]
