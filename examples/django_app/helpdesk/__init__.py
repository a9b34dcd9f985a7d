"""A help desk whose mails are sorted overnight, at half the price."""

from helpdesk.celery import app as celery_app

__all__ = ["celery_app"]
