"""Input files whose ids went with the replica that uploaded them: their name is their batch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide.errors import ProviderError, ProviderUnavailable

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.providers import Provider

logger = get_logger(__name__)
CLOCK_SLACK = 600.0
"""Seconds before a time of ours from which the provider's lists are read: its clock may differ."""


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
