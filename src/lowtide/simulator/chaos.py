"""Ready mixes of faults: ``--chaos 1`` (bad days), ``2`` (bad weeks) and ``3`` (storm).

Under each of them a client that retries, reads batches anew and asks again for what it has not
got comes to its end; nothing here waits for the clock to move a day.
"""

from __future__ import annotations

from typing import Any

_MILD: list[dict[str, Any]] = [
    {"kind": "rate_limit", "probability": 0.02, "retry_after": 0.2},
    {"kind": "server_error", "probability": 0.02},
    {"kind": "cut_before", "probability": 0.01},
    {"kind": "slow", "probability": 0.02, "delay": 0.2},
    {"kind": "line_error", "probability": 0.01, "status": 500},
    {"kind": "line_error", "probability": 0.01, "status": 429},
    {"kind": "separators", "probability": 0.05},
    {"kind": "webhook_duplicate", "probability": 0.2},
]
_ROUGH: list[dict[str, Any]] = [
    {"kind": "error_after", "probability": 0.05},
    {"kind": "cut_after", "probability": 0.05},
    {"kind": "cut_middle", "probability": 0.05},
    {"kind": "truncate", "probability": 0.05},
    {"kind": "content_missing", "probability": 0.05},
    {"kind": "line_missing", "probability": 0.005},
    {"kind": "line_duplicate", "probability": 0.005},
    {"kind": "line_unknown_id", "probability": 0.002},
    {"kind": "line_error", "probability": 0.005, "status": 0},
    {"kind": "line_error", "probability": 0.005, "code": "request_timeout"},
    {"kind": "token_limit", "probability": 0.05},
    {"kind": "unknown_status", "probability": 0.1},
    {"kind": "omit_nulls", "probability": 0.1},
    {"kind": "empty_ids", "probability": 0.1},
    {"kind": "empty_error_file", "probability": 0.1},
    {"kind": "crlf", "probability": 0.1},
    {"kind": "no_final_newline", "probability": 0.2},
    {"kind": "webhook_lost", "probability": 0.2},
]
_STORM: list[dict[str, Any]] = [
    {"kind": "refuse", "probability": 0.03},
    {"kind": "server_error", "probability": 0.05, "status": 503},
    {"kind": "cut_middle", "match": "", "probability": 0.02},
    {"kind": "expire", "probability": 0.05, "after": 3},
    {"kind": "long_finalizing", "probability": 0.05, "seconds": 5},
    {"kind": "unfinished_missing", "probability": 0.1},
    {"kind": "iso_timestamps", "probability": 0.05},
    {"kind": "billing_limit", "probability": 0.003, "where": "line"},
    {"kind": "line_error", "probability": 0.02, "status": 429},
    {"kind": "webhook_late", "probability": 0.2, "seconds": 10},
    {"kind": "webhook_bad_signature", "probability": 0.1},
]
LEVELS = {0: [], 1: _MILD, 2: [*_MILD, *_ROUGH], 3: [*_MILD, *_ROUGH, *_STORM]}


def rules(level: int) -> list[dict[str, Any]]:
    """The rules of a level, 0 to 3.

    Raises:
        ValueError: for any other number.
    """
    if level not in LEVELS:
        raise ValueError(f"chaos is a level from 0 to 3, not {level}")
    return LEVELS[level]
