"""The app that the canvas tests run: each batch task beside a plain twin that does the same.

The twin asks the provider's synchronous API at once, in the worker, and ends as the batch task
should end: whatever a canvas gives with the twin, it has to give with the batch task.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

import orjson
from celery import Celery, Task, group, signals
from pydantic import BaseModel

from lowtide import Answer, BatchTask, chat, embed, respond, runtime
from lowtide.calls import to_call
from lowtide.connect import connect
from lowtide.errors import RequestRejected
from lowtide.request import encode
from tests.canvas import fake_runtime

MODEL = "gpt-5-mini"
_MADE: list[tuple[Any, dict[str, Any]]] = []


def task(**options: Any) -> Any:
    """Notes a function as a task of every app that `make_app` makes."""

    def decorate(fun: Any) -> Any:
        _MADE.append((fun, {"name": fun.__name__, **options}))
        return fun

    return decorate


def twins(**options: Any) -> Any:
    """Notes a function as a task twice: as a batch task, and as "plain_" + its name."""

    def decorate(fun: Any) -> Any:
        given = dict(options)
        batch, plain = given.pop("bases", (Batch, Plain))
        task(base=batch, **given)(fun)
        return task(base=plain, **given, name=f"plain_{fun.__name__}")(fun)

    return decorate


def make_app(url: str, backend: str | None = None) -> Celery:
    app = Celery("canvas", broker=url, backend=backend or url, set_as_current=False)
    app.conf.update(
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
        result_extended=True,
        task_default_queue="canvas",
        worker_lost_wait=0.5,
        result_expires=int(os.environ.get("CANVAS_EXPIRES", "86400")),
        broker_transport_options={
            "visibility_timeout": float(os.environ.get("CANVAS_VISIBILITY", "3600")),
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
    )
    app.conf.update(json.loads(os.environ.get("CANVAS_CONF", "{}")))
    if os.environ.get("CANVAS_DRIVER", "fake") == "fake":
        fake_runtime.install(app)
    for fun, options in _MADE:
        app.task(shared=False, **options)(fun)
    return app


def redis() -> Any:
    return connect(os.environ["CANVAS_REDIS"])


def note_hook(task_id: str, what: str) -> None:
    redis().rpush(f"hooks:{task_id}", what)


def said(text: str, retries: int = 0) -> Any:
    """The request for `text`; one that the provider refuses for "FAIL", and once for "FLAKY"."""
    if "FAIL" in text or ("FLAKY" in text and retries == 0):
        return {"messages": [{"role": "user", "content": text}], "temperature": 99}
    return text


class Hooks:
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note_hook(task_id, f"on_success {retval} {args} {kwargs}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note_hook(task_id, f"on_failure {type(exc).__name__}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note_hook(task_id, f"on_retry {type(exc).__name__}")

    def after_return(self, status: str, retval: Any, task_id: str, *rest: Any) -> None:
        note_hook(task_id, f"after_return {status}")


class Batch(Hooks, BatchTask):
    abstract = True
    model = MODEL
    linger = float(os.environ.get("CANVAS_LINGER", "0.01"))


class Plain(Hooks, Task):
    """The twin: asks at once, in the same process, and ends as the batch task should."""

    abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "run" in cls.__dict__:
            cls.build = cls.__dict__["run"]
            cls.run = Plain.both

    def both(self, *args: Any, **kwargs: Any) -> Any:
        return self.complete(ask(self, self.build(*args, **kwargs)))

    def complete(self, answer: Answer) -> Any:
        return answer.text


def ask(asking: Task, returned: Any) -> Answer:
    call = to_call(returned, model=MODEL)
    lane, body, _ = encode(call, account="default")
    try:
        answer = runtime.of(asking.app).run_now(lane, orjson.loads(body))
    except RequestRejected as error:
        # In the provider's own words, as a batch has them.
        raise RequestRejected(error.message.rpartition("): ")[2]) from None
    return Answer(call.endpoint, answer)


@twins(bind=True)
def summ(self: Any, text: str) -> Any:
    return said(text)


@twins()
def unbound(text: str, tail: str = "") -> Any:
    return said(text + tail)


@twins(bind=True, autoretry_for=(RequestRejected,), default_retry_delay=0, max_retries=2)
def summ_retry(self: Any, text: str) -> Any:
    return said(text, self.request.retries)


class BatchRetries(Batch):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0, max_retries=1)
        return f"{answer.text} after {self.request.retries}"


class PlainRetries(Plain):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0, max_retries=1)
        return f"{answer.text} after {self.request.retries}"


@twins(bind=True, bases=(BatchRetries, PlainRetries))
def retries_itself(self: Any, text: str) -> str:
    return text


class BatchReplaces(Batch):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return self.replace(self.app.tasks["suffix"].s(super().complete(answer), "-post"))


class PlainReplaces(Plain):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return self.replace(self.app.tasks["suffix"].s(answer.text, "-post"))


@twins(bind=True, bases=(BatchReplaces, PlainReplaces))
def replaces_late(self: Any, text: str) -> str:
    return text


class BatchAsksTwice(Batch):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return self.replace(self.app.tasks["summ"].s(answer.text + " again"))


class PlainAsksTwice(Plain):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return self.replace(self.app.tasks["plain_summ"].s(answer.text + " again"))


@twins(bind=True, bases=(BatchAsksTwice, PlainAsksTwice))
def asks_twice(self: Any, text: str) -> str:
    return text


class BatchCalls(Batch):
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs).upper()


class PlainCalls(Plain):
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs).upper()


@twins(bind=True, bases=(BatchCalls, PlainCalls))
def works_on_result(self: Any, text: str) -> str:
    return text


@twins()
def listed(values: list[str]) -> Any:
    return said(",".join(values))


class BuildError(Exception):
    pass


@twins(bind=True)
def bad_build(self: Any, text: str) -> str:
    raise BuildError(text)


@twins(bind=True, autoretry_for=(BuildError,), default_retry_delay=0)
def flaky_build(self: Any, text: str) -> str:
    if self.request.retries == 0:
        raise BuildError(text)
    return text


@twins(bind=True)
def explicit_retry(self: Any, text: str) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return text


@twins(bind=True)
def replacer(self: Any, text: str) -> Any:
    mine = self.name.removesuffix("replacer")
    return self.replace(self.app.tasks[mine + "summ"].s(text))


@twins(bind=True)
def replacer_group(self: Any, text: str) -> Any:
    mine = self.name.removesuffix("replacer_group")
    one = self.app.tasks[mine + "summ"]
    return self.replace(group(one.s(text + "1"), one.s(text + "2")))


@task()
def suffix(value: Any, tail: str = "!") -> str:
    return f"{value}{tail}"


@task()
def join(values: list[Any]) -> str:
    return "|".join(map(str, values))


@task()
def note(value: Any, key: str = "notes") -> Any:
    redis().rpush(key, str(value))
    return value


@task()
def errcb(request: Any, exc: Exception, traceback: Any, key: str = "errors") -> None:
    redis().rpush(key, f"new {type(exc).__name__} {request.args}")


@task()
def errcb_old(task_id: str, key: str = "errors") -> None:
    redis().rpush(key, "old")


@task(bind=True)
def about_me(self: Any, value: Any) -> dict[str, Any]:
    request = self.request
    return {
        "value": value,
        "root": request.root_id,
        "parent": request.parent_id,
        "stamps": request.stamps,
        "priority": request.delivery_info.get("priority"),
    }


class BatchHeaders(Batch):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return seen_headers(self.request)


class PlainHeaders(Plain):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return seen_headers(self.request)


def seen_headers(request: Any) -> Any:
    return {
        "headers": request.headers,
        "shadow": request.shadow,
        "stamps": request.stamps,
        "stamped_headers": request.stamped_headers,
        "args": request.args,
        "kwargs": request.kwargs,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "group_index": request.group_index,
        "ignore_result": request.ignore_result,
        "timelimit": request.timelimit,
        "correlated": request.correlation_id == request.id,
        "has_root": request.root_id is not None,
        "called_directly": request.called_directly,
        "is_eager": request.is_eager,
    }


@twins(bind=True, bases=(BatchHeaders, PlainHeaders))
def tells_headers(self: Any, *args: Any, **kwargs: Any) -> str:
    return "x"


@task(base=Batch)
def kinds(value: Any) -> Generator[Any, Any, Any]:
    yield "x"
    return type(value).__name__


@task(bind=True)
def sends_many(self: Any, texts: list[str]) -> int:
    return len(self.app.tasks["summ"].delay_many(texts))


@task(base=Batch)
def kills(text: str) -> str:
    if text == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    return text


@task(base=Batch)
def exits(text: str) -> str:
    sys.exit(3)


@task(base=Batch, bind=True)
def calls_itself(self: Any, text: str) -> Any:
    return self(text[1:]) if text.startswith("!") else text


@task(base=Batch)
def bad_return(text: str) -> object:
    return 17


@task(base=Batch, rate_limit="50/s")
def limited(text: str) -> str:
    return text


@task(base=Batch, soft_time_limit=1)
def slow_build(text: str) -> str:
    threading.Event().wait(20)
    return text


@task(base=Batch)
def unhurried_build(text: str) -> str:
    threading.Event().wait(0.3)
    return text


@task(base=Batch)
def dies_after_append(text: str) -> str:
    if redis().incr("canvas:dies") == 1:
        redis().set("canvas:die", os.getpid())
    return text


class Ticket(BaseModel):
    title: str
    urgent: bool = False


@task(base=BatchTask, model=MODEL, output=Ticket)
def triage(mail: str) -> str:
    return '{"title": "' + mail + '"}'


@task(base=BatchTask, model=MODEL)
def own_output(mail: str) -> Any:
    return chat('{"title": "' + mail + '"}', output=Ticket)


@task(base=BatchTask, model=MODEL, postprocess=lambda answer: answer.text.upper())
def shouted(text: str) -> str:
    return text


@task(base=BatchTask, model=MODEL, endpoint="/v1/embeddings")
def vectors(texts: list[str]) -> Any:
    return embed(texts)


@task(base=BatchTask, model=MODEL)
def responded(text: str) -> Any:
    return respond(text)


@task(base=BatchTask, model=MODEL)
def review(text: str) -> Generator[Any, Any, Any]:
    first = yield chat(f"a {text}")
    second = yield f"b {first.text}"
    return {"both": [first.text, second.text], "ticket": Ticket(title=text)}


@task(base=BatchTask, model=MODEL)
def catching(text: str) -> Generator[Any, Any, Any]:
    try:
        yield said("FAIL")
    except RequestRejected as error:
        answer = yield chat(f"caught {error.code} {text}")
    return answer


@task(base=BatchTask, model=MODEL)
def not_catching(text: str) -> Generator[Any, Any, Any]:
    first = yield text
    yield said(f"FAIL {first.text}")


@task(base=BatchTask, model=MODEL)
def silent(text: str) -> Generator[Any, Any, Any]:
    if text == "ask":
        yield chat("never")
    return f"quiet {text}"


@task(
    base=BatchTask, bind=True, model=MODEL, autoretry_for=(RequestRejected,), default_retry_delay=0
)
def retried_generator(self: Any, text: str) -> Generator[Any, Any, Any]:
    first = yield f"one {text}"
    redis().rpush(f"asked:{self.request.id}", "one")
    second = yield said(f"FLAKY {first.text}", self.request.retries)
    return second.text


@task(base=BatchTask, bind=True, model=MODEL)
def retries_with_another(self: Any, text: str) -> Generator[Any, Any, Any]:
    same = yield "same"
    first = yield text
    yield "last"
    if text == "old":
        raise self.retry(args=("new",), countdown=0 if self.request.headers is None else 0.1)
    return [same.text, first.text]


@task(base=BatchTask, model=MODEL)
def bad_yield(text: str) -> Generator[Any, Any, Any]:
    yield text
    yield 17


@signals.task_prerun.connect
def _prerun(task_id: str, task: Any, **_: Any) -> None:
    redis().rpush(f"signals:{task_id}", "prerun")


@signals.task_postrun.connect
def _postrun(task_id: str, task: Any, state: str, **_: Any) -> None:
    redis().rpush(f"signals:{task_id}", "postrun")


@signals.task_success.connect
def _success(sender: Any, result: Any, **_: Any) -> None:
    redis().rpush(f"signals:{sender.request.id}", f"success {result}")


@signals.task_failure.connect
def _failure(task_id: str, exception: Any, **_: Any) -> None:
    redis().rpush(f"signals:{task_id}", f"failure {type(exception).__name__}")


app = make_app(os.environ["CANVAS_REDIS"], os.environ.get("CANVAS_BACKEND"))
