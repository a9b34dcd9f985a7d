"""lowtide: Celery tasks at Batch-API price."""
