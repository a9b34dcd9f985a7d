"""What lowtide asks of a provider, and what a batch at a provider looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lowtide.errors import ProviderError
from lowtide.tokens import Usage

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests of a batch there are, and how many are done."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class BatchError:
    """One reason for which a batch failed validation.

    Attributes:
        code: The provider's code, such as "token_limit_exceeded".
        line: Line of the input file, counted from 1; None when the whole batch is meant.
        message: The provider's words.
        param: The parameter complained of.
    """

    code: str | None
    line: int | None
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider tells it; times in seconds since the epoch.

    Attributes:
        id: The provider's id.
        status: In lower case. One that is not known counts as still running.
        input_file_id: The uploaded file.
        output_file_id: Answers; None when there are none (never "").
        error_file_id: Failed lines; None when there are none (never "").
        created_at: When the provider made it.
        ended_at: When it reached its last state.
        expires_at: When the provider gives up.
        counts: Progress, as far as told.
        errors: Why validation failed.
        usage: Tokens of all requests together; None when not told.
        metadata: Our own notes, with our batch id.
        model: The model that answers.
    """

    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    counts: Counts = Counts()
    errors: tuple[BatchError, ...] = ()
    usage: Usage | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    model: str | None = None

    @property
    def ended(self) -> bool:
        """True when nothing more will happen to it."""
        return self.status in ENDED


class Provider(Protocol):
    """A Batch API.

    Every method raises `AccountPaused` when the account cannot be used at all, and
    `ProviderUnavailable` when the same call may succeed later.
    """

    def upload(self, path: Path, *, batch_id: str) -> str:
        """Uploads a batch file.

        Args:
            path: The file, JSON Lines.
            batch_id: Our id, which names the file for people.

        Returns:
            The provider's file id.

        Raises:
            BatchFailed: The provider refuses the file for good.
        """
        ...

    def create(self, file_id: str, *, endpoint: str, batch_id: str) -> RemoteBatch:
        """Creates a batch, sending the request once. This is the call that costs money.

        Args:
            file_id: From `upload`.
            endpoint: Endpoint of every line.
            batch_id: Our id, put into the metadata so that `adopt` finds the batch.

        Raises:
            CreateAmbiguous: The batch may or may not exist now.
            ProviderUnavailable: It surely was not created.
            BatchFailed: The provider refuses it for good.
        """
        ...

    def adopt(
        self, batch_id: str, *, since: float, input_file_id: str | None = None
    ) -> RemoteBatch | None:
        """Finds the batch that an unclear `create` may have made.

        Args:
            batch_id: Our id.
            since: Batches made before this need not be looked at; seconds since the epoch.
            input_file_id: The file that `create` named. Batches of another file are not taken.

        Returns:
            The batch, None when the provider surely lists none.
        """
        ...

    def uploaded(self, batch_id: str, *, since: float) -> list[str]:
        """Ids of the files that uploads of a batch have left, for one that nobody noted.

        Args:
            batch_id: Our id.
            since: Files made before this need not be looked at; seconds since the epoch.
        """
        ...

    def status(self, provider_batch_id: str) -> RemoteBatch:
        """Reads one batch.

        Raises:
            ProviderError: The provider does not know it (code "not_found").
        """
        ...

    def statuses(
        self, provider_batch_ids: Iterable[str]
    ) -> Mapping[str, RemoteBatch | ProviderError]:
        """Reads several batches with few calls.

        Returns:
            Each by its id, or why it could not be read; those unknown to the provider are absent.
        """
        ...

    def download(self, file_id: str, path: Path) -> int:
        """Streams a file to `path` and checks that it is whole.

        Returns:
            Its size in bytes.

        Raises:
            ProviderUnavailable: It is not there (`status` 404 or 410 in its details), or kept
                breaking off. `path` is gone then.
        """
        ...

    def cancel(self, provider_batch_id: str) -> None:
        """Asks for a batch to be cancelled; one that has ended or is unknown is left alone."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Deletes a file; one that is gone already is fine."""
        ...

    def run(
        self, endpoint: str, body: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """One request through the synchronous API, at full price.

        Args:
            endpoint: Path of the API.
            body: The request body.
            timeout: Seconds after which to give up, and then it is sent once; by default it is
                sent again after passing failures, for as long as the SDK does.

        Returns:
            The response body.

        Raises:
            RequestRejected: The provider refuses the request for good.
        """
        ...

    def close(self) -> None:
        """Closes the connections of this process; the next call opens new ones."""
        ...
