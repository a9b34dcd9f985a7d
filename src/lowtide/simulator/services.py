"""Services other than OpenAI that the simulator can play: what they ask for and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lowtide.simulator.records import BATCH_ENDPOINTS

_UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        purposes: what files may be uploaded for.
        batch_purpose: the one of batch files.
        upload_path: where files are uploaded, below ``/v1``.
        upload_fields: what an upload needs beside file and purpose.
        windows: completion windows.
        endpoints: endpoints of batches.
        max_requests: most lines of a batch; None = as set.
        max_bytes: most bytes of a batch file; None = as set.
        least_life: shortest life that an uploaded file may be given, in seconds.
        keeps_metadata: a batch shows the metadata that it was made with.
        created_under: the field of the answer to a creation that holds the batch; None: the
            answer is the batch.
        plain_lists: batches are listed as an array, all of them.
        quirks: what is odd about every batch, as ``BatchRecord.quirks``.
    """

    purposes: tuple[str, ...] = _UPLOAD_PURPOSES
    batch_purpose: str = "batch"
    upload_path: str = "/files"
    upload_fields: tuple[str, ...] = ()
    windows: tuple[str, ...] = ("24h",)
    endpoints: tuple[str, ...] = BATCH_ENDPOINTS
    max_requests: int | None = None
    max_bytes: int | None = None
    least_life: int = 3_600
    keeps_metadata: bool = True
    created_under: str | None = None
    plain_lists: bool = False
    quirks: Mapping[str, Any] = field(default_factory=dict)


OPENAI = Service()
SERVICES: Mapping[str, Service] = {
    "openai": OPENAI,
    "azure": Service(
        endpoints=(_CHAT, _RESPONSES, "/v1/embeddings"),
        max_requests=100_000,
        least_life=14 * 86_400,
        quirks={"empty_ids": True, "empty_error_file": True},
    ),
    "groq": Service(
        windows=("24h", "2d", "3d", "4d", "5d", "6d", "7d"),
        endpoints=(_CHAT,),
        max_bytes=100_000_000,
        quirks={"omit_nulls": True},
    ),
    "together": Service(
        purposes=("batch-api", "fine-tune"),
        batch_purpose="batch-api",
        upload_path="/files/upload",
        upload_fields=("file_name", "file_type"),
        endpoints=(_CHAT, "/v1/completions"),
        max_bytes=100_000_000,
        keeps_metadata=False,
        created_under="job",
        plain_lists=True,
        quirks={"upper_status": True, "iso_timestamps": True, "omit_nulls": True},
    ),
    "doubleword": Service(
        windows=("24h", "1h"),
        endpoints=(_CHAT, _RESPONSES, "/v1/embeddings", "/v1/completions"),
        quirks={"unknown_status": "scheduling", "omit_nulls": True},
    ),
    "odd": Service(
        keeps_metadata=False,
        quirks={
            "crlf": True,
            "empty_error_file": True,
            "iso_timestamps": True,
            "no_final_newline": True,
            "omit_nulls": True,
            "unfinished_missing": True,
            "unknown_status": "queued",
        },
    ),
}
