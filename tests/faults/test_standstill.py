"""A process that stood still while it delivered writes nothing once its claim is over."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.app.task import Context

from lowtide import finality
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


@pytest.mark.parametrize(
    ("claim", "ending"), [(None, "SKIPPED"), ("somebody", "AGAIN"), ("done", "SKIPPED")]
)
def test_a_chord_that_somebody_has_claimed_is_told_again_later(
    redis, redis_url, claim, ending
) -> None:
    """The claim of a worker that died while it sent the body outlives a short lease."""
    app = Celery("chord", broker="memory://", backend=redis_url, set_as_current=False)

    def member(parts: object = None) -> None:
        del parts

    task = app.task(member, name="chord.member", shared=False)
    body = app.task(member, name="chord.body", shared=False).s()
    context = Context(
        {"id": "m1", "group": "g1", "group_index": 0, "chord": body, "task": task.name}
    )
    if claim is not None:
        redis.set("celery-taskset-meta-g1.c", claim)

    assert finality.repeat(task, context, {"status": "SUCCESS", "result": 1}) == ending
