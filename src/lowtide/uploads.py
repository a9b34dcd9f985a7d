"""Input files whose ids went with the replica that uploaded them: their name is their batch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide.errors import ProviderError, ProviderUnavailable

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.providers import Provider
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
CLOCK_SLACK = 600.0
"""Seconds before a time of ours from which the provider's lists are read: its clock may differ."""
# Seconds for which a batch waits until its files can be looked for, or deleted.
_LOOKS_FOR = 3600.0


def forget(provider: Provider, batch: BatchRow, *, but: str | None = None) -> None:
    """Deletes the files that were uploaded for a batch, all but one.

    Raises:
        ProviderUnavailable: They cannot be looked for now.
    """
    try:
        for file_id in provider.uploaded(batch.id, since=batch.recorded_at - CLOCK_SLACK):
            if file_id != but:
                provider.delete_file(file_id)
    except ProviderUnavailable:
        raise
    except ProviderError as error:
        # A service without a usable list lets them expire.
        logger.info("Batch %s: earlier uploads not looked for: %s", batch.id, error)


def delete(rt: Runtime, batch: BatchRow, file_id: str | None, *, since: float) -> None:
    """Deletes a file of a batch, which does not wait for ever where that is refused.

    Args:
        since: Since when it is to be gone, epoch seconds. After an hour it may stay.

    Raises:
        ProviderError: It cannot be deleted now.
    """
    if not file_id:
        return
    try:
        rt.provider(batch.account).delete_file(file_id)
    except ProviderError as error:
        if rt.clock.now() - since < _LOOKS_FOR:
            raise
        logger.warning("Batch %s leaves file %s at the provider: %s", batch.id, file_id, error)


def forget_last(rt: Runtime, batch: BatchRow, *, since: float, but: str | None = None) -> None:
    """`forget` for a batch at its end, after which nobody looks for its files.

    Args:
        since: Since when it has been at its end, epoch seconds. After an hour a file may stay.

    Raises:
        ProviderUnavailable: They cannot be looked for now.
    """
    try:
        forget(rt.provider(batch.account), batch, but=but)
    except ProviderUnavailable as error:
        if rt.clock.now() - since < _LOOKS_FOR:
            raise
        logger.warning("Batch %s may leave a file at the provider: %s", batch.id, error)
