"""A RabbitMQ quorum queue drops what came back too often; calls that have to wait are not that."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from lowtide import BatchTask
from lowtide.worker_request import BatchRequest
from tests.brokers.quorum import on_rabbitmq
from tests.plugins.rabbitmq import RabbitServer
from tests.plugins.stack import until

pytestmark = pytest.mark.slow
LIMIT = 2


def test_a_call_that_goes_back_more_often_than_its_queue_allows_is_not_lost(
    rabbitmq_server: RabbitServer, rabbitmq_url: str
) -> None:
    place = rabbitmq_url.rpartition("/")[2]
    limit = f'{{"delivery-limit": {LIMIT}}}'
    rabbitmq_server.control("set_policy", "-p", place, "limit", ".*", limit)
    app = on_rabbitmq(Celery("returned", set_as_current=False), rabbitmq_url)

    @app.task(name="shop.text", base=BatchTask, model="m", shared=False)
    def text(text: str) -> str:
        return text

    sent = text.apply_async(("a",), headers={"own": "kept"})

    with app.connection_for_read() as connection:
        queue = app.amqp.queues["celery"](connection.channel())

        def take() -> Any:
            return until(lambda: queue.get(accept=["json"]), "the call is there", timeout=10)

        for _ in range(3 * LIMIT):
            message = take()
            request = BatchRequest(
                message,
                app=app,
                task=text,
                on_ack=message.ack_log_error,
                on_reject=message.reject_log_error,
            )
            request.returned()

        message = take()
        assert (message.headers["id"], message.headers["own"]) == (sent.id, "kept")
        assert message.properties["correlation_id"] == sent.id
        assert message.payload[0] == ["a"]
        message.ack()
        assert queue.get() is None
    app.close()
