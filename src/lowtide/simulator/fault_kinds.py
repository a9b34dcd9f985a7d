"""The faults that can be planned: their names, where they act, and what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_CREATE = r"^POST /v1/batches$"
_CONTENT = r"^GET /v1/files/[^/]+/content$"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        scope: ``http`` (a request), ``batch`` (drawn when it is created), ``line`` (one request of
            a batch) or ``webhook``.
        says: what a client meets.
        match: where it acts when the rule does not say.
        params: what a rule can set, with the values it has otherwise.
    """

    scope: str
    says: str
    match: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[str, Kind] = {
    "refuse": Kind("http", "the connection is reset before anything is read"),
    "rate_limit": Kind("http", "429 with Retry-After", params={"retry_after": 1.0}),
    "server_error": Kind("http", "a 5xx before anything is done", params={"status": 500}),
    "error_after": Kind("http", "a 5xx after it is done", _CREATE, {"status": 502}),
    "cut_before": Kind("http", "the request is read, then the connection dies; nothing is done"),
    "cut_after": Kind("http", "it is done, then the connection dies without an answer", _CREATE),
    "cut_middle": Kind("http", "the connection dies in the middle of the answer", _CONTENT),
    "slow": Kind(
        "http", "the answer comes late or slowly", params={"delay": 0.0, "bytes_per_second": 0.0}
    ),
    "truncate": Kind(
        "http", "a shorter content, with a length that agrees", _CONTENT, {"share": 0.5}
    ),
    "content_missing": Kind("http", "404 for a file that is there", _CONTENT),
    "insufficient_quota": Kind("http", "429 insufficient_quota", _CREATE),
    "billing_limit": Kind(
        "batch",
        "billing_hard_limit_reached at create, validation or line",
        params={"where": "create", "status": 400},
    ),
    "token_limit": Kind("batch", "token_limit_exceeded, whatever is in progress"),
    "stuck": Kind(
        "batch", "stays in_progress, beyond its window, until it is cancelled", "", {"share": 0.5}
    ),
    "expire": Kind(
        "batch", "expires with a part of the work done", params={"share": 0.5, "after": None}
    ),
    "late_expiry": Kind(
        "batch", "expires later than expires_at", params={"share": 0.5, "seconds": 1800.0}
    ),
    "long_validating": Kind("batch", "validating takes longer", params={"seconds": 3600.0}),
    "long_finalizing": Kind("batch", "finalizing takes longer", params={"seconds": 3600.0}),
    "unknown_status": Kind(
        "batch", "a status that no document names", params={"status": "scheduling"}
    ),
    "omit_nulls": Kind("batch", "fields that are null are left out"),
    "empty_ids": Kind("batch", 'file ids that are "" instead of null'),
    "empty_error_file": Kind("batch", "an error file of zero bytes when nothing failed"),
    "iso_timestamps": Kind("batch", "timestamps as ISO 8601 text"),
    "unfinished_missing": Kind("batch", "lines cut off by expiry or cancel are in neither file"),
    "crlf": Kind("batch", "result lines end with CR LF"),
    "no_final_newline": Kind("batch", "the last result line has no newline"),
    "line_error": Kind(
        "line",
        "the line fails: with an HTTP status (0 too), or with a code and no response",
        params={"status": 500, "code": None, "message": None},
    ),
    "line_missing": Kind("line", "answered and paid, but in neither file"),
    "line_duplicate": Kind("line", "the answer is there twice"),
    "line_unknown_id": Kind("line", "one more line, with a custom_id that nobody sent"),
    "separators": Kind("line", "U+2028, U+2029 and U+0085 in the answer's text"),
    "refusal": Kind("line", "the model declines to answer"),
    "filtered": Kind("line", "the answer is cut off by a content filter"),
    "wrong_form": Kind("line", "prose in place of the JSON that was asked for"),
    "webhook_duplicate": Kind("webhook", "the event is sent twice, with one webhook-id"),
    "webhook_lost": Kind("webhook", "the event is never sent"),
    "webhook_late": Kind("webhook", "the event is sent later", params={"seconds": 60.0}),
    "webhook_bad_signature": Kind("webhook", "the signature is not by the endpoint's secret"),
}
