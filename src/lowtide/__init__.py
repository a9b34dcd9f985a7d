"""lowtide: Celery tasks at Batch-API price."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowtide.answer import Answer
    from lowtide.calls import Call, chat, complete, embed, image, moderate, respond
    from lowtide.errors import (
        AccountPaused,
        AttemptsExhausted,
        BatchFailed,
        ContentFiltered,
        DeadlineExceeded,
        EndpointNotBatchable,
        EnvelopeError,
        Flagged,
        InvalidAnswer,
        InvalidRequest,
        KilledItsWorker,
        LowtideError,
        ProviderError,
        ProviderUnavailable,
        Refused,
        RequestExpired,
        RequestRejected,
        RequestTooLarge,
        SettingsError,
        Truncated,
    )
    from lowtide.following import GroupProgress, as_completed, progress
    from lowtide.forecast import Estimate, dry_run
    from lowtide.moderation import checked
    from lowtide.named import named_backend
    from lowtide.reference import TaskReference, task_ref
    from lowtide.result import BatchResult
    from lowtide.task import BatchTask, batch_task

_HOMES = {
    "lowtide.answer": ("Answer",),
    "lowtide.calls": ("Call", "chat", "complete", "embed", "image", "moderate", "respond"),
    "lowtide.forecast": ("Estimate", "dry_run"),
    "lowtide.errors": (
        "AccountPaused",
        "AttemptsExhausted",
        "BatchFailed",
        "ContentFiltered",
        "DeadlineExceeded",
        "EndpointNotBatchable",
        "EnvelopeError",
        "Flagged",
        "InvalidAnswer",
        "InvalidRequest",
        "KilledItsWorker",
        "LowtideError",
        "ProviderError",
        "ProviderUnavailable",
        "Refused",
        "RequestExpired",
        "RequestRejected",
        "RequestTooLarge",
        "SettingsError",
        "Truncated",
    ),
    "lowtide.following": ("GroupProgress", "as_completed", "progress"),
    "lowtide.moderation": ("checked",),
    "lowtide.named": ("named_backend",),
    "lowtide.reference": ("TaskReference", "task_ref"),
    "lowtide.result": ("BatchResult",),
    "lowtide.task": ("BatchTask", "batch_task"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccountPaused",
    "Answer",
    "AttemptsExhausted",
    "BatchFailed",
    "BatchResult",
    "BatchTask",
    "Call",
    "ContentFiltered",
    "DeadlineExceeded",
    "EndpointNotBatchable",
    "EnvelopeError",
    "Estimate",
    "Flagged",
    "GroupProgress",
    "InvalidAnswer",
    "InvalidRequest",
    "KilledItsWorker",
    "LowtideError",
    "ProviderError",
    "ProviderUnavailable",
    "Refused",
    "RequestExpired",
    "RequestRejected",
    "RequestTooLarge",
    "SettingsError",
    "TaskReference",
    "Truncated",
    "as_completed",
    "batch_task",
    "chat",
    "checked",
    "complete",
    "dry_run",
    "embed",
    "image",
    "moderate",
    "named_backend",
    "progress",
    "respond",
    "task_ref",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: importing lowtide itself costs nothing."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'lowtide' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
