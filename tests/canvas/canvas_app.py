"""The app that the canvas tests run: each batch task beside a plain twin that does the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from celery import Celery, Task, group, signals
from pydantic import BaseModel

from tests.canvas import fake_runtime

if os.environ.get("CANVAS_DRIVER", "fake") == "fake":
    fake_runtime.replace()

from lowtide import Answer, BatchTask, batch_task, chat, embed, respond
from lowtide.connect import connect
from lowtide.errors import LowtideError, RequestRejected

URL = os.environ["CANVAS_REDIS"]
app = Celery("canvas", broker=URL, backend=os.environ.get("CANVAS_BACKEND", URL))
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_extended=os.environ.get("CANVAS_EXTENDED") == "1",
    result_expires=int(os.environ.get("CANVAS_EXPIRES", "86400")),
    worker_prefetch_multiplier=4,
    task_default_queue="canvas",
    broker_transport_options={"visibility_timeout": float(os.environ.get("CANVAS_VISIBILITY", "3600"))},
)


def redis() -> Any:
    return connect(URL)


def note_hook(task_id: str, what: str) -> None:
    redis().rpush(f"hooks:{task_id}", what)


class Hooks:
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note_hook(task_id, f"on_success {retval} {args} {kwargs}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note_hook(task_id, f"on_failure {type(exc).__name__}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note_hook(task_id, f"on_retry {type(exc).__name__}")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note_hook(task_id, f"after_return {status}")


class Batch(Hooks, BatchTask):
    abstract = True
    model = "m"


class Plain(Hooks, Task):
    """The twin: asks at once, in the same process, and ends as the batch task should."""

    abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "run" in cls.__dict__:
            cls.build = cls.__dict__["run"]
            cls.run = Plain.both

    def both(self, *args: Any, **kwargs: Any) -> Any:
        text = self.build(*args, **kwargs)
        return self.complete(ask(text, self.request.id))

    def complete(self, text: str) -> Any:
        return text


def ask(text: str, name: str) -> str:
    body = {"messages": [{"role": "user", "content": text}]}
    outcome = fake_runtime.answer("/v1/chat/completions", body, name, redis())
    if isinstance(outcome, LowtideError):
        raise outcome
    return Answer(*outcome).text


def twins(**options: Any) -> Any:
    """Makes a function a task twice: `name` is the batch task, `plain_name` its twin."""

    def decorate(fun: Any) -> Any:
        given = dict(options)
        bases = given.pop("bases", (Batch, Plain))
        name = fun.__name__
        app.task(fun, name=f"plain_{name}", base=bases[1], **given)
        return app.task(fun, name=name, base=bases[0], **given)

    return decorate


@twins(bind=True)
def summ(self: Any, text: str) -> str:
    return text


@twins()
def unbound(text: str, suffix: str = "") -> str:
    return text + suffix


@twins(bind=True, autoretry_for=(RequestRejected,), default_retry_delay=0, max_retries=2)
def summ_retry(self: Any, text: str) -> str:
    return text


class BatchRetries(Batch):
    abstract = True

    def complete(self, answer: Answer, **options: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0, max_retries=1)
        return f"{answer.text} after {self.request.retries}"


class PlainRetries(Plain):
    abstract = True

    def complete(self, text: str) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0, max_retries=1)
        return f"{text} after {self.request.retries}"


@twins(bind=True, bases=(BatchRetries, PlainRetries))
def retries_itself(self: Any, text: str) -> str:
    return text


class BatchReplaces(Batch):
    abstract = True

    def complete(self, answer: Answer, **options: Any) -> Any:
        return self.replace(suffix.s(super().complete(answer), "-post"))


class PlainReplaces(Plain):
    abstract = True

    def complete(self, text: str) -> Any:
        return self.replace(suffix.s(text, "-post"))


@twins(bind=True, bases=(BatchReplaces, PlainReplaces))
def replaces_late(self: Any, text: str) -> str:
    return text


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


def prefixed(mine: str, name: str) -> Any:
    """The twin of task `name` that belongs to `mine`: "" or "plain_"."""
    return app.tasks[mine + name]


@twins(bind=True)
def replacer(self: Any, text: str) -> Any:
    mine = self.name.removesuffix("replacer")
    return self.replace(prefixed(mine, "summ").s(text))


@twins(bind=True)
def replacer_group(self: Any, text: str) -> Any:
    mine = self.name.removesuffix("replacer_group")
    one = prefixed(mine, "summ")
    return self.replace(group(one.s(text + "1"), one.s(text + "2")))


@app.task
def suffix(value: Any, tail: str = "!") -> str:
    return f"{value}{tail}"


@app.task
def join(values: list[Any]) -> str:
    return "|".join(map(str, values))


@app.task
def note(value: Any, key: str = "notes") -> Any:
    redis().rpush(key, str(value))
    return value


@app.task
def errcb(request: Any, exc: Exception, traceback: Any, key: str = "errors") -> None:
    redis().rpush(key, f"new {type(exc).__name__} {request.args}")


@app.task
def errcb_old(task_id: str, key: str = "errors") -> None:
    redis().rpush(key, "old")


@app.task(bind=True)
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

    def complete(self, answer: Answer, **options: Any) -> Any:
        return seen_headers(self.request)


class PlainHeaders(Plain):
    abstract = True

    def complete(self, text: str) -> Any:
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


class Ticket(BaseModel):
    title: str
    urgent: bool = False


@batch_task(name="triage", model="m", output=Ticket)
def triage(mail: str) -> str:
    return '{"title": "' + mail + '"}'


@batch_task(name="own_output", model="m")
def own_output(mail: str) -> Any:
    return chat('{"title": "' + mail + '"}', output=Ticket)


@batch_task(name="shouted", model="m", postprocess=lambda answer: answer.text.upper())
def shouted(text: str) -> str:
    return text


@batch_task(name="vectors", model="m", endpoint="/v1/embeddings")
def vectors(texts: list[str]) -> Any:
    return embed(texts)


@batch_task(name="responded", model="m")
def responded(text: str) -> Any:
    return respond(text)


@batch_task(name="review", model="m")
def review(text: str) -> Iterator[Any]:
    first = yield chat(f"a {text}")
    second = yield f"b {first.text}"
    return {"both": [first.text, second.text], "ticket": Ticket(title=text)}


@batch_task(name="catching", model="m")
def catching(text: str) -> Iterator[Any]:
    try:
        yield chat("FAIL")
    except RequestRejected as error:
        answer = yield chat(f"caught {error.code} {text}")
    return answer


@batch_task(name="not_catching", model="m")
def not_catching(text: str) -> Iterator[Any]:
    first = yield text
    yield f"FAIL {first.text}"


@batch_task(name="silent", model="m")
def silent(text: str) -> Iterator[Any]:
    if text == "ask":
        yield chat("never")
    return f"quiet {text}"


@batch_task(name="retried_generator", bind=True, model="m", autoretry_for=(RequestRejected,), default_retry_delay=0)
def retried_generator(self: Any, text: str) -> Iterator[Any]:
    first = yield f"one {text}"
    redis().rpush(f"asked:{self.request.id}", "one")
    second = yield f"FLAKY {first.text}"
    return second.text


@batch_task(name="bad_yield", model="m")
def bad_yield(text: str) -> Iterator[Any]:
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
