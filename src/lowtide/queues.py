"""The pipeline's own queues, declared as the app's other queues are.

RabbitMQ refuses a queue that two programs declare differently. So every program that sends or
takes a step declares its queue here: on the app's default exchange, as a quorum queue where the
app's own queues are.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import entity

_QUORUM = "quorum"
_entity: Any = entity


def declared(app: Celery, name: str) -> str:
    """Makes sure that `app` knows the queue, in the one form that all programs give it.

    Returns:
        The name, for `apply_async(queue=…)`.
    """
    queues = app.amqp.queues
    if name not in queues:
        queues.add(_entity.Queue(name, routing_key=name, queue_arguments=_arguments(app)))
    return name


def consume(app: Celery, *names: str) -> None:
    """Has a worker that was not given `-Q` consume these queues too."""
    queues = app.amqp.queues
    # A worker that was given -Q consumes what it was told to, no more.
    if queues._consume_from is None:  # noqa: SLF001 - Celery has no public name for it
        for name in names:
            queues.select_add(queues[declared(app, name)])


def waiting(app: Celery, name: str) -> int | None:
    """How many messages wait in a queue; None for a broker that does not say it by the way."""
    with app.pool.acquire(block=True) as connection:
        size = getattr(connection.default_channel, "_size", None)
        return None if size is None else int(size(name))


def _arguments(app: Celery) -> dict[str, Any] | None:
    conf = app.conf
    kinds = {conf.task_default_queue_type, conf.task_create_missing_queue_type}
    kinds |= {
        (queue.queue_arguments or {}).get("x-queue-type")
        for queue in app.amqp.Queues(conf.task_queues).values()
    }
    return {"x-queue-type": _QUORUM} if _QUORUM in kinds else None
