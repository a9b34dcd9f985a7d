"""The asynchronous validation of a batch's input file: every code, with its line number."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lowtide.simulator.answers.models import DEFAULT_MODERATION, exists
from lowtide.simulator.files import lines_with_offsets
from lowtide.simulator.settings import Limits

_MAX_ERRORS = 1_000
_REQUIRED = ("custom_id", "method", "url", "body")
_CONTENT = {
    "/v1/chat/completions": ("messages", "Messages"),
    "/v1/responses": ("input", "Input"),
    "/v1/embeddings": ("input", "Input"),
    "/v1/completions": ("prompt", "Prompt"),
    "/v1/moderations": ("input", "Input"),
}


@dataclass(slots=True)
class Validation:
    """What a look through an input file found.

    Attributes:
        errors: entries of the batch's ``errors.data``; none means the file is good.
        model: the one model of the file.
        tokens: input tokens that the batch will hold enqueued.
        offsets: byte at which each line begins, and at last the end of the file.
    """

    errors: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    tokens: int = 0
    offsets: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def total(self) -> int:
        """Number of lines."""
        return max(0, len(self.offsets) - 1)


def entry(
    code: str, message: str, *, line: int | None = None, param: str | None = None
) -> dict[str, Any]:
    """One entry of a batch's ``errors.data``; ``line`` counts from 1."""
    return {"code": code, "line": line, "message": message, "param": param}


def file_not_found(file_id: str) -> dict[str, Any]:
    """The entry for an input file that is not there, which create does not refuse."""
    return entry(
        "invalid_request",
        f"Cannot find file {file_id}, or organization does not have access to it.",
        param="file_id",
    )


def token_limit(model: str, account: str, limit: int) -> dict[str, Any]:
    """The entry for a full queue."""
    return entry(
        "token_limit_exceeded",
        f"Enqueued token limit reached for {model} in organization {account}. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have "
        "been completed.",
    )


def validate(path: Path, endpoint: str, limits: Limits, models: tuple[str, ...]) -> Validation:
    """Look through an input file, line by line, in constant memory.

    Args:
        path: the file.
        endpoint: the batch's endpoint, which every line has to name.
        limits: how many requests and embedding inputs are allowed.
        models: shell patterns of the models that exist.
    """
    checker = _Checker(endpoint, models)
    found = checker.found
    end, content = 0, False
    for number, (offset, line) in enumerate(lines_with_offsets(path), 1):
        found.offsets.append(offset)
        end = offset + len(line)
        content = content or bool(line.strip())
        found.tokens += len(line) // 4
        if len(found.errors) < _MAX_ERRORS:
            checker.check(number, line)
    if not content:
        message = "The input file is empty. Please ensure that the batch contains requests."
        return Validation([entry("empty_file", message)])
    found.offsets.append(end)
    if found.total > limits.max_requests:
        message = f"The batch has {found.total:,} requests; at most {limits.max_requests:,} may be."
        found.errors.append(entry("too_many_tasks", message))
    if checker.embedding_inputs > limits.max_embedding_inputs:
        message = (
            f"The batch has {checker.embedding_inputs:,} embedding inputs; at most "
            f"{limits.max_embedding_inputs:,} may be."
        )
        found.errors.append(entry("invalid_request", message, param="body.input"))
    return found


class _Checker:
    def __init__(self, endpoint: str, models: tuple[str, ...]) -> None:
        self.found = Validation()
        self.embedding_inputs = 0
        self._endpoint = endpoint
        self._models = models
        self._seen: set[str] = set()

    def check(self, number: int, raw: bytes) -> None:
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            line = None
        if not isinstance(line, dict):
            message = "This line is not parseable as valid JSON."
            self._add("invalid_json_line", message, number)
            return
        absent = [name for name in _REQUIRED if line.get(name) is None]
        for name in absent:
            message = f"Missing required parameter: '{name}'."
            self._add("missing_required_parameter", message, number, name)
        if not absent:
            self._envelope(number, line)

    def _envelope(self, number: int, line: Mapping[str, Any]) -> None:
        custom_id, body = line["custom_id"], line["body"]
        if line["method"] != "POST":
            message = "Invalid value for 'method': only 'POST' is supported."
            self._add("invalid_value", message, number, "method")
        if line["url"] != self._endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            self._add("invalid_url", message, number, "url")
        if not isinstance(custom_id, str) or not isinstance(body, dict):
            wrong = "body" if isinstance(custom_id, str) else "custom_id"
            self._add("invalid_type", f"Invalid type for '{wrong}'.", number, wrong)
            return
        if custom_id in self._seen:
            message = (
                f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch."
            )
            self._add("duplicate_custom_id", message, number, "custom_id")
        self._seen.add(custom_id)
        self._body(number, body)

    def _body(self, number: int, body: Mapping[str, Any]) -> None:
        if body.get("stream"):
            message = "The body of this request is invalid: Streaming is not supported in the "
            self._add("streaming_unsupported", f"{message}Batch API.", number, "body.stream")
        name, word = _CONTENT.get(self._endpoint, ("prompt", "Prompt"))
        given = body.get(name)
        if given is None:
            message = f"{word} parameter is required."
            self._add("invalid_request", message, number, f"body.{name}")
        if self._endpoint == "/v1/embeddings":
            many = isinstance(given, list) and given and not isinstance(given[0], int)
            self.embedding_inputs += len(given) if many and given else 1
        self._model(number, body.get("model"))

    def _model(self, number: int, model: Any) -> None:
        if model is None and self._endpoint == "/v1/moderations":
            model = DEFAULT_MODERATION
        if not isinstance(model, str) or not model:
            message = "Model parameter is required."
            self._add("invalid_request", message, number, "body.model")
        elif not exists(model, self._models):
            message = f"The provided model '{model}' is not supported by the Batch API."
            self._add("model_not_found", message, number, "body.model")
        elif self.found.model is None:
            self.found.model = model
        elif model != self.found.model:
            message = (
                f"The model '{model}' for this request does not match the rest of the batch. "
                "Each batch must contain requests for a single model."
            )
            self._add("mismatched_model", message, number, "body.model")

    def _add(self, code: str, message: str, line: int, param: str | None = None) -> None:
        self.found.errors.append(entry(code, message, line=line, param=param))
