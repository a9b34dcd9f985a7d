"""What a container's health check says of a worker, and which queues workers take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from celery import Celery

from lowtide import queues, runtime
from tests.plugins.stack import Stack, until

MODULE = "tests.integration.app"


def health(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lowtide.cli", "health", "--worker", "w1@test", *words]
    env = {**os.environ, **stack.env}
    return subprocess.run(command, env=env, cwd=stack.folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_worker_is_healthy_while_it_ticks_and_answers(stack: Stack) -> None:
    before = health(stack)
    worker = stack.worker(MODULE)
    until(lambda: health(stack).returncode == 0, "the worker is healthy")
    other = health(stack, "--worker", "celery@test")
    assert other.returncode == 1
    assert other.stderr == (
        "lowtide: celery@test has not ticked. On its machine runs w1@test: ask for it with "
        "--worker w1@test.\n"
    )
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        until(lambda: "loop stands still" in health(stack, "--older", "1s").stderr, "it stands")
        silent = health(stack)
    finally:
        os.kill(worker.pid, signal.SIGCONT)

    assert (before.returncode, before.stderr.count("\n")) == (1, 1)
    assert "has not ticked" in before.stderr
    assert silent.returncode == 1
    assert "does not answer" in silent.stderr
    until(lambda: health(stack).returncode == 0, "the worker is healthy again")


@pytest.fixture
def made() -> Iterator[Callable[..., Celery]]:
    """Makes apps that are sent nowhere, and closes them."""
    apps = []

    def make(**conf: object) -> Celery:
        app = Celery("queues", broker="amqp://nobody@127.0.0.1:1", set_as_current=False)
        app.conf.update(lowtide=conf.pop("lowtide", {}), **conf)
        runtime.install(app)
        app.finalize()
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def test_deliver_steps_have_a_queue_of_their_own_when_one_is_set(made) -> None:
    one, two = made(), made(lowtide={"deliver_queue": "answers"})

    assert {one.tasks[f"lowtide.{verb}"].queue for verb in ("submit", "deliver")} == {"lowtide"}
    assert two.tasks["lowtide.submit"].queue == "lowtide"
    assert two.tasks["lowtide.deliver"].queue == "answers"


@pytest.mark.parametrize(
    "conf", [{"task_default_queue_type": "quorum"}, {"task_create_missing_queue_type": "quorum"}]
)
def test_the_pipelines_queue_is_a_quorum_queue_where_the_apps_are(made, conf) -> None:
    app = made(**conf)
    queue = app.amqp.queues[app.tasks["lowtide.submit"].queue]

    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    assert queue.exchange == app.amqp.default_exchange


def test_workers_take_all_queues_of_the_pipeline_unless_told_which(made) -> None:
    every, chosen = made(), made()
    chosen.amqp.queues.select(["celery"])

    for app in (every, chosen):
        queues.consume(app, "lowtide", "answers")

    assert set(every.amqp.queues.consume_from) == {"celery", "lowtide", "answers"}
    assert set(chosen.amqp.queues.consume_from) == {"celery"}
