"""An app's own Celery app."""

from celery import Celery

app = Celery("app")
app.config_from_object("config")
