"""Result files: each line of an output or error file becomes one outcome of one request.

Nothing in these files is trusted: services differ, files break off, and what a model wrote is
inside. Success is a 2xx status and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from lowtide import lenient, outcomes
from lowtide.calls import RESPONSES
from lowtide.tokens import Usage

MAX_LINE = 128 * 1024 * 1024
_BUFFER = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS = 1_000

# 4xx that say "later", not "never".
_PASSING_STATUSES = frozenset({408, 409, 425, 429})
# The account's trouble, not the request's, whatever status comes with it.
_PASSING_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_REASONS = {
    "batch_expired": "expired",
    "batch_cancelled": "cancelled",
    "batch_canceled": "cancelled",
    "request_timeout": "timeout",
    "rate_limit_exceeded": "rate_limited",
    "server_error": "server_error",
}
# Codes of errors without an HTTP status which sending the same again cannot change.
_FINAL_CODES = frozenset(
    {"model_not_found", "mismatched_model", "context_length_exceeded", "content_policy_violation"}
)


@dataclass(frozen=True, slots=True)
class Answered:
    """The provider answered.

    Attributes:
        status_code: 2xx.
        body: The API's response body.
        request_id: The provider's id of this one request.
    """

    status_code: int
    body: dict[str, Any] = field(repr=False)
    request_id: str | None = None

    @property
    def usage(self) -> Usage | None:
        """Tokens, None when the answer does not tell; read when asked, as few lines are."""
        return Usage.of(self.body.get("usage"))


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused the request for good: its 4xx.

    Attributes:
        code: Its error code, or the error's type.
        param: The parameter complained of.
        message: Its words.
        status: HTTP status; None when the error has none.
        request_id: The provider's id of this one request.
    """

    code: str | None
    param: str | None
    message: str
    status: int | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The request has no answer for a passing reason, and is to be sent again.

    Attributes:
        reason: "expired", "cancelled", "timeout", "rate_limited", "server_error", "no_response",
            "unreadable", "missing" or "file_gone".
        code: The provider's code.
        message: Its words.
        status: HTTP status; None when there is none.
    """

    reason: str
    code: str | None
    message: str
    status: int | None = None


Outcome = Answered | Rejected | Again


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one request."""

    custom_id: str
    outcome: Outcome


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a result file without line breaks, in constant memory.

    Splits on line feeds alone: JSON strings may hold U+2028 and others that text modes split on.
    A byte order mark, CRLF, blank lines and a missing last line break are fine. A line longer
    than `MAX_LINE` is left out.
    """
    with path.open("rb", buffering=_BUFFER) as file:
        start = file.read(len(_BOM))
        if start != _BOM:
            file.seek(0)
        while raw := file.readline(MAX_LINE):
            if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE)
                continue
            line = raw.strip()
            if line:
                yield line


def glance(raw: bytes, endpoint: str) -> outcomes.Answered | None:
    """The answer that a usual line tells, its body as it came; `read_body` reads it.

    Returns:
        None when the line is anything but usual, which `parse_line` has to tell.
    """
    try:
        line = _usual.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    response, body = line.response, bytes(line.response.body)
    if not 200 <= response.status_code < 300 or not body.startswith(b"{"):
        return None
    if endpoint == RESPONSES and b'"failed"' in body:
        return None
    return outcomes.Answered(line.custom_id, response.status_code, body, response.request_id)


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: msgspec.Raw
    request_id: str | None = None


class _Usual(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response


_usual = msgspec.json.Decoder(_Usual)


def read_body(raw: bytes) -> dict[str, Any] | None:
    """The body of an answer; None when it cannot be read."""
    body = lenient.loads(raw)
    return body if isinstance(body, dict) else None


def write_body(body: dict[str, Any]) -> bytes:
    """The body of an answer as JSON; `null`, which `read_body` does not take, when it cannot be.

    orjson reads what is nested four times as deeply as what it writes.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        pass
    try:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return b"null"


def parse_line(raw: bytes) -> Line | None:
    """The outcome that one line tells.

    Returns:
        None when the line cannot be read or names no request. The caller finds the request by
        its absence.
    """
    data = lenient.loads(raw)
    if not isinstance(data, dict):
        return None
    custom_id = data.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return None
    response = data.get("response")
    if isinstance(response, dict):
        return Line(custom_id, _from_response(response, data.get("error")))
    return Line(custom_id, _from_error(_error(data.get("error")), None, None))


def _from_response(response: dict[str, Any], beside: Any) -> Outcome:
    status = _status(response.get("status_code"))
    body = response.get("body")
    request_id = _text(response.get("request_id"))
    if status is not None and 200 <= status < 300:
        return _from_success(status, body, request_id)
    error = _error(body.get("error") if isinstance(body, dict) else body) or _error(beside)
    return _from_error(error, status, request_id)


def _from_success(status: int, body: Any, request_id: str | None) -> Outcome:
    if not isinstance(body, dict):
        return Again("unreadable", None, "The answer has no body.", status)
    error = body.get("error")
    # /v1/responses tells a failure of the model itself inside a 200.
    if body.get("status") == "failed" and isinstance(error, dict):
        return _from_error(error, None, request_id)
    return Answered(status, body, request_id)


def _from_error(error: dict[str, Any], status: int | None, request_id: str | None) -> Outcome:
    code = _text(error.get("code")) or _text(error.get("type"))
    message = (_text(error.get("message")) or "")[:_SHOWN_CHARACTERS]
    if _is_final(status, code):
        return Rejected(code, _text(error.get("param")), message, status, request_id)
    if status == 429:
        reason = "rate_limited"
    elif status is not None and status >= 500:
        reason = "server_error"
    else:
        reason = _REASONS.get(code or "", "no_response")
    return Again(reason, code, message, status)


def _is_final(status: int | None, code: str | None) -> bool:
    if code in _PASSING_CODES:
        return False
    if status is not None:
        return 400 <= status < 500 and status not in _PASSING_STATUSES
    return code is not None and (code in _FINAL_CODES or code.startswith("invalid_"))


def _error(value: Any) -> dict[str, Any]:
    """An error object; some services give only its words."""
    if isinstance(value, str) and value:
        return {"message": value}
    return value if isinstance(value, dict) else {}


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
