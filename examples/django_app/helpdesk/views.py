"""Taking mails in, and telling what is known of them."""

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST

from helpdesk.models import Mail
from helpdesk.tasks import note, note_trouble, sort


@require_POST
def mails(request: HttpRequest) -> JsonResponse:
    """Keeps a mail and asks what it is about, once the row is committed."""
    with transaction.atomic():
        kept = Mail.objects.create(text=json.loads(request.body)["text"])
        transaction.on_commit(
            lambda: sort.apply_async(
                (kept.text,), link=note.s(kept.id), link_error=note_trouble.s(mail_id=kept.id)
            )
        )
    return JsonResponse({"id": kept.id}, status=202)


@require_GET
def mail(_request: HttpRequest, mail_id: int) -> JsonResponse:
    """What is known of a mail."""
    kept = get_object_or_404(Mail, id=mail_id)
    return JsonResponse({"subject": kept.subject, "urgent": kept.urgent, "trouble": kept.trouble})
