"""Logs of a worker or the page: one JSON object a line, or lines for people."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LEVELS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_OURS = ("lowtide", "worker", "tasks")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, task and what else was given.

    What is given as `extra=` becomes a field of its own; an exception is in `error`.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_task(),
            "process": record.process,
        }
        line.update({k: v for k, v in record.__dict__.items() if k not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class HumanFormatter(logging.Formatter):
    """A line for people: clock, level, message, and the task in whose course it came.

    Args:
        colour: Whether levels are coloured.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = f"{record.levelname:<7}"
        if self._colour:
            level = f"\033[{_LEVELS.get(record.levelname, '0')}m{level}\033[0m"
        where = "" if record.name.startswith(_OURS) else f"{record.name}: "
        task = _task()
        within = f"  ({task['task']} {task['task_id']})" if task else ""
        line = f"{at} {level} {where}{record.getMessage()}{within}"
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def formatter(form: str) -> logging.Formatter | None:
    """The formatter named "json" or "human"; None for any other name."""
    if form == "json":
        return JsonFormatter()
    return HumanFormatter(colour=sys.stderr.isatty()) if form == "human" else None


def configure(form: str, level: int = logging.INFO) -> None:
    """Sets up logging of a program that is no Celery worker, such as the page.

    Args:
        form: "json", "human", or "celery" for lines for people as well.
        level: The least level that is shown.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form) or HumanFormatter(colour=sys.stderr.isatty()))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def attach() -> None:
    """Gives workers of this process the form that the setting `log_format` names.

    Celery's own set-up stays as it is: its handlers, levels and files.
    """
    from celery.signals import after_setup_logger, after_setup_task_logger

    # By name, so that a second app connects nothing twice.
    after_setup_logger.connect(_reform, dispatch_uid="lowtide.logs")
    after_setup_task_logger.connect(_reform, dispatch_uid="lowtide.logs.task")


def _reform(logger: logging.Logger | None = None, **_: Any) -> None:
    from lowtide import runtime

    made = formatter(runtime.of().settings.log_format)
    if made is not None and logger is not None:
        for handler in logger.handlers:
            handler.setFormatter(made)


def _task() -> dict[str, str]:
    """The Celery task that runs now, if any."""
    from celery import current_task

    if not current_task or current_task.request.id is None:
        return {}
    return {"task": str(current_task.name), "task_id": str(current_task.request.id)}
