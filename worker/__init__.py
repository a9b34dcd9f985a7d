"""The service that a deployment runs: the Celery app and the programs around it."""
