"""The app of the main job, with RabbitMQ as its broker."""

from __future__ import annotations

import os

from tests.brokers.quorum import on_rabbitmq
from tests.integration import app as shop

app = on_rabbitmq(shop.app, os.environ["TEST_BROKER"])
if os.environ.get("TEST_EVENTS") == "off":
    app.conf.worker_send_task_events = False
