"""The shortcut past Celery's tracer: nobody can tell, and whoever could has the tracer."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_task, signals
from celery.app import trace
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.loaders.app import AppLoader
from pydantic import BaseModel

from lowtide import Answer, BatchTask, accept, events, resume
from lowtide.calls import Call, chat, embed, to_call
from lowtide.connect import connect
from lowtide.events import TaskEvents
from lowtide.outcome_pipe import OutcomePipe
from lowtide.resume import Resumed, Resumption
from lowtide.shortcut import Shortcut
from lowtide.steps import Asks
from lowtide.stored_form import form_of
from tests.canvas import fake_runtime
from tests.canvas.accepted import accepted

HOST = "w1@test"
Task = type[BatchTask]


class Verdict(BaseModel):
    good: bool


def ask(text: str) -> str:
    return text


def plain_app(url: str, conf: dict[str, Any] | None = None, **options: Any) -> Celery:
    """An app with one task, "ask", that has run once: Celery's tracer is there then."""
    app = Celery("short", broker=url, backend=url, set_as_current=False)
    app.conf.update(conf or {})
    fake_runtime.install(app)
    given = {"name": "ask", "base": BatchTask, "model": "m", "shared": False, **options}
    app.task(**given)(ask)
    app.finalize()
    resume.resume(app, [item(app, "first")], HOST)
    return app


def item(
    app: Celery,
    task_id: str,
    call: Call | None = None,
    content: Any = "R(a)",
    task: str = "ask",
    **fields: Any,
) -> Resumption:
    """A call of `task` with its answer."""
    call = to_call(call or "a", model="m", output=app.tasks[task].output)
    fields = {"root_id": "root", **fields}
    step = Asks(call, ends=True)
    request = accepted(app, task, task_id, step, ["a", 2.5], {"b": "c"}, **fields)
    body = content
    if not isinstance(content, dict):
        message = {"role": "assistant", "content": content}
        body = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    return Resumption(request, (call.endpoint, body))


@pytest.fixture
def url(canvas_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    url = canvas_server.removesuffix("/0") + "/13"
    connect(url).flushdb()
    monkeypatch.setenv("CANVAS_REDIS", url)
    # The apps of other tests listen to theirs.
    for signal in (signals.task_prerun, signals.task_postrun, signals.task_success):
        monkeypatch.setattr(signal, "receivers", [])
    # Celery's tracer asks for it when it is made.
    level = trace.logger.level
    trace.logger.setLevel(logging.INFO)
    trace._install_stack_protection()  # as a worker does
    yield url
    trace.reset_worker_optimizations(Celery("any", set_as_current=False))
    trace.logger.setLevel(level)


@pytest.fixture
def app(url: str) -> Iterator[Celery]:
    app = plain_app(url)
    yield app
    app.close()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the tasks that Celery's tracer ran."""
    seen: list[str] = []

    def noting(app: Celery, task: Any, request: dict[str, Any], turn: Any) -> Any:
        seen.append(request["id"])
        return accept.trace(app, task, request, turn)

    monkeypatch.setattr(resume, "trace", noting)
    return seen


class Ear:
    """All that is heard of the tasks that end in a block."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Any] = []
        self.lines: list[Any] = []
        monkeypatch.setattr(events, "_wanted", lambda _: True)
        monkeypatch.setattr(TaskEvents, "add", self._event)
        handler = logging.Handler()
        handler.emit = self._line  # type: ignore[method-assign]
        monkeypatch.setattr(trace.logger, "handlers", [handler])
        # What holds half of an emoji no report of a test may hold.
        monkeypatch.setattr(trace.logger, "propagate", False)
        self._redis = app.backend.client
        self._listener = self._redis.pubsub(ignore_subscribe_messages=True)
        self._listener.psubscribe("celery-task-meta-*")
        self._listener.get_message(timeout=5)  # it listens

    def _event(self, task: Any, kind: str, task_id: str, **fields: Any) -> None:
        fields.pop("runtime", None)
        self.events.append((task.name, kind, task_id, fields))

    def _line(self, record: logging.LogRecord) -> None:
        told = {**record.args, **record.data}  # type: ignore[dict-item, attr-defined]
        told.pop("runtime")
        where = (record.name, record.levelname, record.filename, record.funcName)
        self.lines.append((where, record.msg, told, current_task.request.id, current_task.name))

    def said(self) -> list[Any]:
        """What was published, without the time."""
        self._redis.publish("celery-task-meta-", b"the end")
        found: list[Any] = []
        while (message := self._listener.get_message(timeout=5)) is not None:
            if message["data"] == b"the end":
                break
            found.append((message["channel"], _timeless(message["data"])))
        return found

    def stored(self, task_id: str) -> Any:
        """What is stored, without the time, and whether it goes when it should."""
        key = f"celery-task-meta-{task_id}"
        return _timeless(self._redis.get(key)), 86_000 < self._redis.ttl(key) <= 86_400


def _timeless(data: bytes) -> Any:
    meta = json.loads(data)
    assert meta.pop("date_done")
    return meta


def told(end: Resumed) -> Any:
    assert end.ended is not None
    ending = end.ended.ending
    return end.custom_id, end.state, end.next, ending, end.ended.task.name, end.ended.headers


CASES: dict[str, Callable[[Celery], Resumption]] = {
    "an answer": lambda app: item(app, "x"),
    "a long answer in many scripts": lambda app: item(app, "x", content="Ωß🌊\u2028\0 " * 1_000),
    "half of an emoji": lambda app: item(app, "x", content="\ud83c"),
    "an empty answer": lambda app: item(app, "x", content=""),
    "no choices": lambda app: item(app, "x", content={"odd": [1, 2.5, None, {"a": True}]}),
    "tool calls": lambda app: item(
        app, "x", content={"choices": [{"message": {"tool_calls": [{"id": "c", "type": "function"}]}}]}
    ),
    "an output model": lambda app: item(app, "x", chat("a", output=Verdict), '{"good": true}'),
    "a vector": lambda app: item(app, "x", embed("a"), {"data": [{"embedding": [1, 0.5e-9]}]}),
    "several vectors": lambda app: item(app, "x", embed(["a"]), {"data": [{"embedding": [1e22]}]}),
    "a member of a group": lambda app: item(app, "x", group="g", group_index=2, parent_id="p"),
    "a call with another name": lambda app: item(app, "x", shadow="another"),
    "a call with headers": lambda app: item(app, "x", headers={"tenant": "acme"}, own="yes"),
    "a retry": lambda app: item(app, "x", retries=2),
    "stamps": lambda app: item(app, "x", stamps={"s": ["1"]}, stamped_headers=["s"]),
}  # fmt: skip


@pytest.mark.parametrize("setting", ["", "result_extended", "show_prompts"])
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
@pytest.mark.parametrize("case", CASES)
def test_nobody_can_tell(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    traced: list[str],
    case: str,
    zone: str | None,
    setting: str,
) -> None:
    monkeypatch.setenv("LOWTIDE_SHOW_PROMPTS", str(setting == "show_prompts"))
    app = plain_app(url, {"result_extended": setting == "result_extended", "timezone": zone})
    heard = []
    del traced[:]
    for shortcut in (True, False):
        with monkeypatch.context() as patch:
            ear = Ear(app, patch)
            if not shortcut:
                patch.setattr(Shortcut, "end", lambda *_: {})
            (end,) = resume.resume(app, [CASES[case](app)], HOST)
            heard.append((told(end), ear.stored("x"), ear.said(), ear.lines, ear.events))
            assert traced == ([] if shortcut else ["x"])
            app.backend.client.delete("celery-task-meta-x")

    assert heard[0] == heard[1]
    assert len(heard[0][2]) == len(heard[0][3]) == len(heard[0][4]) == 1
    app.close()


def test_the_time_is_the_apps(url: str) -> None:
    app = plain_app(url, {"timezone": "Asia/Kolkata"})
    before = app.now()
    resume.resume(app, [item(app, "x")], HOST)

    meta = json.loads(app.backend.client.get("celery-task-meta-x"))
    assert before.isoformat() <= meta["date_done"] <= app.now().isoformat()
    assert meta["date_done"].endswith("+05:30")
    app.close()


def test_an_answer_of_no_use_is_an_error(app: Celery, traced: list[str]) -> None:
    refused = {"choices": [{"message": {"refusal": "I will not."}, "finish_reason": "stop"}]}
    model = chat("a", output=Verdict)
    items = [item(app, "refused", content=refused), item(app, "bad", model, "no JSON")]
    items.append(item(app, "good"))

    ends = resume.resume(app, items, HOST)

    assert [end.state for end in ends] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert traced == ["refused", "bad"]
    assert type(app.AsyncResult("refused").result).__name__ == "Refused"
    assert type(app.AsyncResult("bad").result).__name__ == "InvalidAnswer"
    assert app.AsyncResult("good").result == "R(a)"
    assert current_task._get_current_object() is None


class Called(BatchTask):
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class Begun(BatchTask):
    abstract = True

    def before_start(self, *_: Any) -> None: ...


class Glad(BatchTask):
    abstract = True

    def on_success(self, *_: Any) -> None: ...


class After(BatchTask):
    abstract = True

    def after_return(self, *_: Any) -> None: ...


class Completing(BatchTask):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return f"{self.request.id}: {answer.text}"


@pytest.mark.parametrize(
    "options",
    [
        *({"base": base} for base in (Called, Begun, Glad, After, Completing)),
        {"postprocess": lambda answer: answer.text},
        {"autoretry_for": (ValueError,)},
        {"track_started": True},
        {"ignore_result": True},
    ],
    ids=lambda options: getattr(options.get("base"), "__name__", next(iter(options))),
)
def test_tasks_that_have_more_to_do(url: str, traced: list[str], options: dict[str, Any]) -> None:
    app = plain_app(url, **options)
    del traced[:]

    assert [end.state for end in resume.resume(app, [item(app, "x")], HOST)] == ["SUCCESS"]
    assert traced == ["x"]
    app.close()


@pytest.mark.parametrize("link", ["callbacks", "chain", "chord", "ignore_result"])
def test_calls_that_have_more_to_do(app: Celery, traced: list[str], link: str) -> None:
    note = app.signature("note")
    app.backend.set_chord_size("g", 2)
    links: dict[str, dict[str, Any]] = {
        "callbacks": {"callbacks": [note]},
        "chain": {"chain": [note]},
        "chord": {"chord": dict(note, chord_size=2), "group": "g", "group_index": 0},
        "ignore_result": {"ignore_result": True},
    }

    ends = resume.resume(app, [item(app, "x", **links[link]), item(app, "y")], HOST)

    assert [end.state for end in ends] == ["SUCCESS", "SUCCESS"]
    assert traced == ["x"]


@pytest.mark.parametrize("signal", [signals.task_prerun, signals.task_postrun, signals.task_success], ids=lambda signal: signal.name)  # fmt: skip
def test_who_listens_hears(app: Celery, traced: list[str], signal: Any) -> None:
    heard = []

    def hear(sender: Any, **_: Any) -> None:
        heard.append(sender.request.id)

    signal.connect(hear)
    resume.resume(app, [item(app, "x")], HOST)
    signal.disconnect(hear)

    assert heard == traced == ["x"]


def test_a_tracer_of_somebody_else(app: Celery, traced: list[str]) -> None:
    """As Sentry and New Relic put theirs around Celery's."""
    task = app.tasks["ask"]
    celerys, ran = task.__trace__, []

    @functools.wraps(celerys)
    def theirs(uuid: str, *args: Any) -> Any:
        ran.append(uuid)
        return celerys(uuid, *args)

    task.__trace__ = theirs
    resume.resume(app, [item(app, "x")], HOST)
    assert ran == traced == ["x"]


def test_a_run_of_somebody_else(
    app: Celery, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = app.tasks["ask"].run
    monkeypatch.setattr(app.tasks["ask"], "run", lambda *given: run(*given))  # noqa: PLW0108
    resume.resume(app, [item(app, "x")], HOST)
    assert traced == ["x"]


def test_a_loader_that_looks_at_each_task(
    app: Celery, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loader(AppLoader):
        def on_task_init(self, task_id: str, task: Any) -> None: ...

    monkeypatch.setattr(app, "loader", Loader(app))
    resume.resume(app, [item(app, "x")], HOST)
    assert traced == ["x"]


def test_a_backend_that_stores_in_its_own_way(app: Celery) -> None:
    class Backend(RedisBackend):
        def encode(self, data: Any) -> Any:
            return super().encode({**data, "own": True})

    backend = Backend(app=app, url=app.conf.result_backend)
    assert json.loads(form_of(backend)("x", "R", None, None))["own"] is True


@pytest.mark.parametrize("setting", [{"result_serializer": "yaml"}, {"result_compression": "zlib"}])
def test_a_backend_with_another_form(url: str, setting: dict[str, Any]) -> None:
    app = plain_app(url, {"accept_content": ["json", "yaml"], **setting})
    backend = RedisBackend(app=app, url=url)
    stored = form_of(backend)("x", "R(a)", None, Context(id="x"))

    assert backend.decode_result(stored)["result"] == "R(a)"
    assert stored[:1] != (b"{" if isinstance(stored, bytes) else "{")
    app.close()


def test_each_call_is_current_in_its_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = plain_app(url)
    app.task(name="another", base=BatchTask, model="m", shared=False)(ask)
    items = [item(app, "a"), item(app, "b", task="another"), item(app, "c", task="another")]
    items.append(item(app, "d"))
    tasks = ["ask", "another", "another", "ask"]
    resume.resume(app, [item(app, "its first", task="another")], HOST)
    seen = []
    form = OutcomePipe.store

    def store(pipe: OutcomePipe, *given: Any) -> None:
        seen.append((current_task.request.id, current_task.name))
        form(pipe, *given)

    monkeypatch.setattr(OutcomePipe, "store", store)
    ear = Ear(app, monkeypatch)
    resume.resume(app, items, HOST)

    assert seen == list(zip("abcd", tasks, strict=True))
    assert [line[-2:] for line in ear.lines] == seen
    assert current_task._get_current_object() is None
    assert not any(len(app.tasks[name].request_stack) for name in tasks)
    app.close()


def test_a_result_that_cannot_be_stored_is_the_tracers(
    app: Celery, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OutcomePipe.store

    def refuse(pipe: OutcomePipe, task_id: str, *given: Any) -> None:
        if task_id == "y" and not traced:
            raise ValueError("not this one")
        store(pipe, task_id, *given)

    monkeypatch.setattr(OutcomePipe, "store", refuse)

    ends = resume.resume(app, [item(app, name) for name in "xyz"], HOST)

    assert [end.custom_id for end in ends] == ["x.0.0", "y.0.0", "z.0.0"]
    assert [end.state for end in ends] == ["SUCCESS"] * 3
    assert traced == ["y"]
    assert app.AsyncResult("y").result == "R(a)"


def test_a_line_that_cannot_be_logged_hurts_no_other_task(
    app: Celery, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(record: logging.LogRecord) -> bool:
        if record.args["id"] == "y":  # type: ignore[index, call-overload]
            raise LookupError("a filter of the app's own")
        return True

    monkeypatch.setattr(trace.logger, "filters", [judge])
    named = [item(app, name, shadow=name) for name in "xyz"]

    ends = resume.resume(app, named, HOST)

    assert [ends[0].state, ends[2].state] == ["SUCCESS"] * 2
    assert traced == ["y"]
    assert [app.AsyncResult(name).result for name in "xz"] == ["R(a)"] * 2


def test_what_is_final_stays_as_it_is(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    resume.resume(app, [item(app, "x", content="R(before)")], HOST)
    ear = Ear(app, monkeypatch)

    ends = resume.resume(app, [item(app, name) for name in "xyz"], HOST, revoked=["y"])

    assert [end.state for end in ends] == ["SKIPPED", "REVOKED", "SUCCESS"]
    assert app.AsyncResult("x").result == "R(before)"
    assert app.AsyncResult("y").state == "REVOKED"
    assert [line[2]["id"] for line in ear.lines] == ["z"]


@pytest.mark.parametrize("sure", [1, 2])
def test_what_was_stored_before_the_backend_failed_is_told(
    app: Celery, traced: list[str], monkeypatch: pytest.MonkeyPatch, sure: int
) -> None:
    sent = OutcomePipe._execute
    sizes: list[int] = []

    def execute(pipe: OutcomePipe) -> None:
        sizes.append(len(pipe._results))
        if len(sizes) > sure:
            raise RuntimeError("out of order")
        sent(pipe)

    monkeypatch.setattr(OutcomePipe, "_execute", execute)
    ear = Ear(app, monkeypatch)
    names = [f"n{number}" for number in range(450)]
    items = [item(app, name) for name in names]

    ends = resume.resume(app, [*items, items[0], items[-1]], HOST)

    stored = [name for name in names if app.backend.client.exists(f"celery-task-meta-{name}")]
    assert sizes == [200, 200, 50][: sure + 1]
    assert stored == names[: 200 * sure] == [line[2]["id"] for line in ear.lines]
    assert [end.state for end in ends] == ["SUCCESS"] * 200 * sure + ["AGAIN"] * (452 - 200 * sure)
    assert traced == []


def test_large_results_are_not_sent_all_at_once(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = OutcomePipe._execute
    sizes: list[int] = []

    def execute(pipe: OutcomePipe) -> None:
        sizes.append(len(pipe._results))
        sent(pipe)

    monkeypatch.setattr(OutcomePipe, "_execute", execute)
    large = "x" * 1_500_000

    ends = resume.resume(app, [item(app, name, content=large) for name in "abcd"], HOST)

    assert [end.state for end in ends] == ["SUCCESS"] * 4
    assert sizes == [3, 1]
    assert app.AsyncResult("d").result == large


def test_a_result_that_shall_never_expire_does_not(app: Celery) -> None:
    app.backend.expires = None

    ends = resume.resume(app, [item(app, "x", content="R")], HOST)

    assert [end.state for end in ends] == ["SUCCESS"]
    assert app.backend.client.ttl("celery-task-meta-x") == -1
    assert app.AsyncResult("x").result == "R"


def test_nothing_is_stored_once_another_may_have_taken_over(app: Celery, traced: list[str]) -> None:
    ends = resume.resume(app, [item(app, "x"), item(app, "y")], HOST, may_write=lambda: False)

    assert [end.state for end in ends] == ["AGAIN", "AGAIN"]
    assert traced == []
    assert not app.backend.client.exists("celery-task-meta-x", "celery-task-meta-y")
