"""The errors that a user of lowtide meets: one small tree.

Each is rebuilt on the client by Celery from its `args`, so `args` hold all it knows:
a message for people and a dict of details for programs, JSON values alone.
"""

from __future__ import annotations

from typing import Any


class LowtideError(Exception):
    """What every error of lowtide is.

    Args:
        message: One line: what happened, to what, what to do.
        details: JSON values for programs. Usual keys: `task`, `task_id`, `lane`, `batch`
            (the provider's batch id), `code`, `param`, `status`, `attempts`, `text`.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        self.details: dict[str, Any] = dict(details or {})
        super().__init__(message, self.details)

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        # Without the details: they may hold what a model wrote, and reprs end in logs.
        return f"{type(self).__name__}({self.message!r})"

    @property
    def message(self) -> str:
        """The line for people."""
        return str(self.args[0])

    @property
    def code(self) -> str | None:
        """The provider's error code, when it gave one."""
        return self.details.get("code")

    @property
    def param(self) -> str | None:
        """The request parameter that the provider complained of, when it named one."""
        return self.details.get("param")

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What was tried before it failed, oldest first; empty where it was tried once.

        Each has `at` (UTC, ISO 8601), `code` and `message`; where a batch was sent also `batch`
        (lowtide's id), `provider_batch` and `status` (HTTP).
        """
        found = self.details.get("attempts")
        return list(found) if isinstance(found, list) else []

    def about(self, **details: Any) -> LowtideError:
        """The same error with more details; what is known already stays."""
        merged = {**{k: v for k, v in details.items() if v is not None}, **self.details}
        return type(self)(self.message, merged)


class SettingsError(LowtideError):
    """A setting is unknown or has a value that cannot be used."""


class InvalidRequest(LowtideError):
    """What the task returned cannot become a batch request: found before anything was sent."""


class RequestTooLarge(InvalidRequest):
    """One request is larger than a whole batch file may be."""


class EndpointNotBatchable(InvalidRequest):
    """The endpoint has no batch form."""


class RequestRejected(LowtideError):
    """The provider refused this request for good: its 4xx, or a validation error of its line."""


class RequestExpired(LowtideError):
    """The provider did not get to this request within its window, as often as it was tried."""


class AttemptsExhausted(LowtideError):
    """The request failed for passing reasons (429, 5xx, lost lines) as often as it was tried."""


class BatchFailed(LowtideError):
    """The provider failed the whole batch and trying again does not help."""


class InvalidAnswer(LowtideError):
    """The answer does not validate against the task's `output` model."""

    @property
    def text(self) -> str | None:
        """What the model wrote, where the answer is one of those below; else None."""
        return self.details.get("text")


class Refused(InvalidAnswer):
    """The model declined to answer; `text` is what it said."""


class ContentFiltered(InvalidAnswer):
    """A content filter cut the answer off; `text` is what there is of it."""


class Truncated(InvalidAnswer):
    """The answer was cut off at the most tokens it may have; `text` is what there is of it."""


class Flagged(LowtideError):
    """A moderation model flagged the input, so that it was not sent; `details` names why."""


class KilledItsWorker(LowtideError):
    """Running this task ends its worker process."""


class DeadlineExceeded(LowtideError):
    """The call's deadline passed before its answer came."""


class ProviderError(LowtideError):
    """A call to the provider's API failed."""


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached or is overloaded: the same call may succeed later."""


class CreateAmbiguous(ProviderError):
    """The provider may or may not have created the batch: look before creating again."""


class AccountPaused(ProviderError):
    """The account cannot be used for now: bad key, no quota, or a billing limit."""


class StateError(LowtideError):
    """A batch was asked to take a step that its state does not allow."""


class Superseded(StateError):
    """Another replica took this batch over; what the late one wanted to write was refused."""


class LedgerUnavailable(LowtideError):
    """The database cannot be reached or written; work waits, the same call may succeed later."""


class EnvelopeError(LowtideError):
    """What was stored to finish a task cannot be read: damaged, or of another release."""


class BufferUnreachable(LowtideError):
    """Redis of the buffers does not answer; calls wait in their queue."""
