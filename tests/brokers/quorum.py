"""Celery's settings for RabbitMQ, as config/celeryconfig.py makes them for a deployment."""

from __future__ import annotations

from typing import Any

from celery import Celery


def conf(broker: str) -> dict[str, Any]:
    return {
        "broker_url": broker,
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        "task_default_exchange": "tests",
        "task_default_exchange_type": "topic",
        "task_create_missing_queue_exchange_type": "topic",
        "broker_transport_options": {"confirm_publish": True},
        "worker_prefetch_multiplier": 64,
    }


def on_rabbitmq(app: Celery, broker: str) -> Celery:
    """The app with quorum queues at `broker`; its results stay where they are."""
    app.conf.update(conf(broker))
    return app
