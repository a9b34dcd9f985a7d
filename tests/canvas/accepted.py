"""A call between its phases, as the first one leaves it."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.task import Context

from lowtide.accept import make_request
from lowtide.envelope import Body, Envelope
from lowtide.request import Request
from lowtide.steps import Asks


def accepted(
    app: Celery,
    name: str,
    task_id: str,
    step: Asks,
    args: list[Any],
    kwargs: dict[str, Any] | None = None,
    **fields: Any,
) -> Request:
    """The request that a call of the task `name` waits for; `fields` are its links and headers."""
    embed = {link: fields.pop(link, None) for link in ("callbacks", "errbacks", "chain", "chord")}
    known = {"id": task_id, "task": name, "root_id": task_id, "correlation_id": task_id}
    context = Context({**known, "delivery_info": {"routing_key": "links"}, **fields})
    envelope = Envelope.seal(context, Body.of(args, kwargs or {}, embed, "json"))
    return make_request(app.tasks[name], context, step, envelope)
