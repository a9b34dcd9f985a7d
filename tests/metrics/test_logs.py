"""Logs as JSON objects and as lines for people."""

from __future__ import annotations

import json
import logging

import pytest
from celery import Celery

from lowtide import logs


def record(message: str = "Batch %s waits", *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "lowtide.submit", logging.WARNING, "f.py", 1, message, args or ("b1",), None
    )
    made.__dict__.update(more)
    return made


def test_json_is_one_object_a_line() -> None:
    line = logs.JsonFormatter().format(record("two\nlines %s", "x", batch="b1", at=b"bytes"))

    read = json.loads(line)
    assert "\n" not in line
    assert read["message"] == "two\nlines x"
    assert read["level"] == "warning"
    assert read["batch"] == "b1"
    assert "task" not in read


def test_an_exception_is_told_with_its_way() -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        import sys

        made = record()
        made.exc_info = sys.exc_info()

    read = json.loads(logs.JsonFormatter().format(made))

    assert read["error"] == "ValueError"
    assert "no such thing" in read["traceback"]
    assert "no such thing" in logs.HumanFormatter().format(made)


def test_within_a_task_its_name_and_id_are_told() -> None:
    app = Celery("logs", set_as_current=False)
    lines = []

    @app.task(name="logs.one", shared=False)
    def one() -> None:
        lines.append(logs.JsonFormatter().format(record()))
        lines.append(logs.HumanFormatter().format(record()))

    one.apply(task_id="t1")

    assert json.loads(lines[0])["task"] == "logs.one"
    assert json.loads(lines[0])["task_id"] == "t1"
    assert lines[1].endswith("Batch b1 waits  (logs.one t1)")


@pytest.mark.parametrize(
    ("form", "kind"), [("json", logs.JsonFormatter), ("human", logs.HumanFormatter)]
)
def test_a_worker_logs_as_the_setting_says(monkeypatch, form, kind) -> None:
    from celery.signals import after_setup_logger

    from lowtide import runtime

    app = Celery("logs", set_as_current=False)
    app.conf.lowtide = {"log_format": form}
    runtime.install(app)
    monkeypatch.setattr(runtime, "of", lambda: app.lowtide_runtime)
    logger = logging.getLogger("tests.worker")
    logger.handlers = [logging.StreamHandler()]

    after_setup_logger.send(sender=None, logger=logger)

    assert isinstance(logger.handlers[0].formatter, kind)
