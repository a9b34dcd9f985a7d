"""An app's own tasks."""

from celery import shared_task

from lowtide import batch_task


@batch_task(model="gpt-5-mini")
def summarize(text: str) -> str:
    """The prompt; the result is the answer's text."""
    return f"Summarise in at most 20 words:\n\n{text}"


@shared_task
def length(text: str) -> int:
    """A plain task."""
    return len(text)
