"""A process that stood still while it delivered writes nothing once its claim is over."""

from __future__ import annotations

import pytest
from celery import Celery

from lowtide.errors import Superseded
from lowtide.outcome_pipe import OutcomePipe


def test_no_result_is_stored_after_the_claim_ran_out(redis, redis_url) -> None:
    app = Celery("still", broker="memory://", backend=redis_url, set_as_current=False)
    runs = [True]
    with OutcomePipe(app, lambda: runs[0]) as pipe:
        app.backend.store_result("in-time", 1, "SUCCESS")
        pipe.flush()
        app.backend.store_result("too-late", 2, "SUCCESS")
        runs[0] = False  # the process stood still here
        with pytest.raises(Superseded):
            app.backend.store_result("failed-late", ValueError("x"), "FAILURE")

    assert isinstance(pipe.trouble, Superseded)
    assert redis.get("celery-task-meta-in-time")
    assert redis.get("celery-task-meta-too-late") is None
    assert redis.get("celery-task-meta-failed-late") is None
