"""Starts what the app needs from the installed wheel, runs a chain through it, ends all of it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import lowtide
from lowtide.embedded import EmbeddedRedis
from lowtide.simulator import SimulatorServer

TEXT = (
    "Celery is a distributed task queue. Workers take messages from a broker. Results go to a "
    "backend, where a client waits for them. A chord calls its body when its header is done. "
    "The project began in 2009. Redis and RabbitMQ are the brokers that most people use."
)


def main() -> None:
    installed = Path(lowtide.__file__)
    assert sys.prefix in str(installed), f"not the installed package: {installed}"
    with EmbeddedRedis() as redis, SimulatorServer() as provider:
        os.environ["APP_REDIS"] = redis.start("redis")
        os.environ["OPENAI_API_KEY"] = "sk-simulated"
        os.environ["OPENAI_BASE_URL"] = provider.base_url
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-c", "2"]
        with subprocess.Popen(command, start_new_session=True) as worker:
            try:
                call()
            finally:
                worker.terminate()
                try:
                    worker.wait(30)
                finally:
                    end_group(worker)


def call() -> None:
    from celery import chain

    from tasks import length, summarize
    from worker import app

    app.set_current()
    summary = summarize.delay(TEXT).get(timeout=60)
    assert 0 < len(summary) < len(TEXT), summary
    assert chain(summarize.s(TEXT), length.s()).delay().get(timeout=60) == len(summary)
    print(f"a task from the wheel answered: {summary}")


def end_group(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
