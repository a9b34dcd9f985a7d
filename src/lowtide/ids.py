"""The name of a request: which task, which try, which step."""

from __future__ import annotations

from hashlib import blake2b

MAX_LENGTH = 64


MOST_RETRIES = 10_000


def run_number(retries: int, replaced: int) -> int:
    """Which run of a task id this is: a retry keeps the id, and so does what replaces a task.

    Args:
        retries: How often the task was retried.
        replaced: Celery's `replaced_task_nesting`: how often the id got another task.
    """
    return replaced * MOST_RETRIES + retries


def custom_id(task_id: str, run: int, step: int) -> str:
    """The custom_id of one request, unique and the same wherever it is made.

    Args:
        task_id: Celery's id of the task; one too long for the provider is hashed.
        run: Which run of that id it is, see `run_number`.
        step: Number of the request within the task, from 0: a generator makes several.
    """
    tail = f".{run}.{step}"
    if len(task_id) + len(tail) > MAX_LENGTH or not task_id.isascii():
        task_id = blake2b(task_id.encode(), digest_size=16).hexdigest()
    return task_id + tail


def place(custom_id: str) -> tuple[int, int]:
    """(run, step) of a request within its task: what came later is greater."""
    _, run, step = custom_id.rsplit(".", 2)
    return int(run), int(step)
