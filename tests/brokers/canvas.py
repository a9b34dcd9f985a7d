"""The app of the canvas matrix, with RabbitMQ as its broker."""

from __future__ import annotations

import os

from celery import Celery

from tests.brokers.quorum import on_rabbitmq
from tests.canvas.canvas_app import make_app as on_redis


def make_app(url: str, backend: str | None = None) -> Celery:
    return on_rabbitmq(on_redis(url, backend), os.environ["TEST_BROKER"])


app = make_app(os.environ["CANVAS_REDIS"])
if os.environ.get("TEST_EVENTS") == "off":
    app.conf.worker_send_task_events = False
