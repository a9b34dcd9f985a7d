"""The Celery app of a deployment: `celery -A worker.app worker`."""

from __future__ import annotations

import logging
import pkgutil

from celery import Celery

import tasks

# It tells every step of every check whether there is something to migrate.
logging.getLogger("alembic").setLevel(logging.WARNING)

app = Celery("worker")
app.config_from_object("config.celeryconfig")
app.conf.imports = tuple(
    module.name for module in pkgutil.iter_modules(tasks.__path__, prefix="tasks.")
)
