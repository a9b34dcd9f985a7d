"""The batch task, and what is done with its answers."""

from celery import shared_task
from pydantic import BaseModel

from helpdesk.models import Mail
from lowtide import batch_task


class About(BaseModel):
    """What a mail is about."""

    subject: str
    urgent: bool


@batch_task(name="helpdesk.sort", model="gpt-5-mini", output=About)
def sort(text: str) -> str:
    """Reads a mail."""
    return f"What is this mail about, and is it urgent?\n\n{text}"


@shared_task(name="helpdesk.note")
def note(about: dict, mail_id: int) -> None:
    """Keeps what the mail is about; called with the answer."""
    Mail.objects.filter(id=mail_id).update(subject=about["subject"], urgent=about["urgent"])


@shared_task(name="helpdesk.note_trouble")
def note_trouble(request, error, _traceback, mail_id: int) -> None:
    """Keeps why a mail could not be sorted."""
    del request
    Mail.objects.filter(id=mail_id).update(trouble=str(error))
