"""What a user can write, and what comes of it when it is called at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from lowtide import (
    BatchTask,
    InvalidAnswer,
    InvalidRequest,
    RequestRejected,
    batch_task,
    chat,
    embed,
    hidden,
    task_ref,
)
from lowtide.bulk import CALLS_IN_MESSAGE, _messages
from lowtide.calls import to_call
from lowtide.hidden import shows_prompts, veil
from lowtide.lifetimes import CHORD_EXPIRES
from lowtide.steps import Asks
from tests.canvas import fake_runtime
from tests.canvas.accepted import accepted


class Ticket(BaseModel):
    title: str


def wrapped(function: Any) -> Any:
    def call(text: Any) -> Any:
        return function(text)

    return call


def same(text: Any) -> Any:
    return text


class Mail(BaseModel):
    text: str


@pytest.fixture
def app() -> Celery:
    made = Celery("tasks", broker="memory://", backend="cache+memory://", set_as_current=False)
    fake_runtime.install(made)
    return made


def made(app: Celery, function: Any, **options: Any) -> Any:
    function.__name__ = options["name"]
    return app.task(base=BatchTask, model="m", shared=False, **options)(function)


def test_what_a_function_may_return(app: Celery) -> None:
    forms = [
        "a",
        [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"}],
        {"messages": [{"role": "user", "content": "a"}], "model": "other"},
        chat("a", system="be kind"),
    ]
    task = made(app, lambda number: forms[number], name="forms")

    assert [task.apply((number,)).get() for number in range(4)] == ["R(a)"] * 4


def test_output_models(app: Celery) -> None:
    by_task = made(app, lambda text: f'{{"title": "{text}"}}', name="by_task", output=Ticket)
    by_call = made(app, lambda text: chat(f'{{"title": "{text}"}}', output=Ticket), name="by_call")
    wrong = made(app, lambda: "not json", name="wrong", output=Ticket)

    assert by_task.apply(("x",)).get() == by_call.apply(("x",)).get() == {"title": "x"}
    with pytest.raises(InvalidAnswer, match="Ticket"):
        wrong.apply().get()


def test_an_output_model_that_no_worker_can_import_is_refused(app: Celery) -> None:
    from lowtide.accept import model_path

    class Local(BaseModel):
        title: str

    with pytest.raises(InvalidRequest, match="move it to the top of its module"):
        model_path(Local)
    assert model_path(Ticket).endswith("test_task:Ticket")


@pytest.mark.parametrize(
    ("task_id", "model", "tenant"),
    [("a\0b", "m", None), ("ab", "m\0", None), ("ab", "m", "ac\0me"), ("a\ud83d", "m", None)],
)
def test_a_text_that_the_ledger_cannot_keep_is_refused_before_it_is_buffered(
    app: Celery, task_id: str, model: str, tenant: str | None
) -> None:
    made(app, lambda: "ask", name="asks")
    step = Asks(to_call("a", model=model), ends=True)

    with pytest.raises(InvalidRequest, match=r"^The (task id|model|tenant) .*NUL.*; leave it out"):
        accepted(app, "asks", task_id, step, [], headers={"lowtide_tenant": tenant})

    fine = Asks(to_call("a", model="m"), ends=True)
    assert accepted(app, "asks", "ab", fine, []).task_id == "ab"


def test_postprocess_and_complete(app: Celery) -> None:
    class Counting(BatchTask):
        abstract = True

        def complete(self, answer: Any) -> Any:
            return [self.request.id, super().complete(answer)]

    shouting = made(
        app, lambda text: text, name="shouting", postprocess=lambda answer: answer.text.upper()
    )
    counting = app.task(base=Counting, model="m", shared=False)(same)
    model = made(
        app, lambda text: text, name="model", postprocess=lambda answer: Ticket(title=answer.text)
    )

    assert shouting.apply(("a",)).get() == "R(A)"
    assert counting.apply(("a",), task_id="one").get() == ["one", "R(a)"]
    assert model.apply(("a",)).get() == {"title": "R(a)"}


def test_embeddings_of_one_and_of_many(app: Celery) -> None:
    task = made(app, wrapped(embed), name="vectors")
    bare = made(app, lambda texts: texts, name="bare", endpoint="/v1/embeddings")

    assert task.apply((["ab", "c"],)).get() == bare.apply((["ab", "c"],)).get() == [[2.0], [1.0]]
    assert task.apply(("ab",)).get() == bare.apply(("ab",)).get() == [2.0]
    assert task.apply((["ab"],)).get() == [[2.0]]


def test_generators_at_once(app: Celery) -> None:
    def talk(text: str) -> Any:
        first = yield text
        try:
            yield {"messages": [{"role": "user", "content": "x"}], "temperature": 99}
        except RequestRejected as error:
            return [first.text, error.code, Ticket(title="t"), first]

    def silent() -> Any:
        return 5
        yield

    assert made(app, talk, name="talk").apply(("a",)).get() == [
        "R(a)",
        "bad",
        {"title": "t"},
        "R(a)",
    ]
    assert made(app, talk, name="talk2")("a")[0] == "R(a)"
    assert made(app, silent, name="silent").apply().get() == 5


def test_generators_let_go_of_what_they_hold_while_they_wait(app: Celery) -> None:
    from lowtide.steps import advance

    closed = []

    def holding() -> Any:
        try:
            yield "a"
        finally:
            closed.append(True)

    kept = holding()
    advance(kept, (), lambda value: to_call(value, model="m"))
    assert closed == [True]


def test_bind_and_self(app: Celery) -> None:
    def mine(self: Any, text: str) -> str:
        return f"{self.name} {text}"

    assert made(app, mine, name="mine", bind=True).apply(("a",)).get() == "R(mine a)"


def test_a_task_that_calls_itself_or_another_gets_the_answer_at_once(app: Celery) -> None:
    def twice(text: str) -> str:
        return task(text[1:]) if text.startswith("!") else text

    task = made(app, twice, name="twice")
    assert task.apply(("!a",)).get() == "R(R(a))"
    assert task("!a") == "R(R(a))"


def test_class_based_tasks(app: Celery) -> None:
    class Greeting(BatchTask):
        name = "greeting"
        model = "m"

        def run(self, text: str) -> str:
            return f"hello {text}"

    task = app.register_task(Greeting())
    assert task.apply(("you",)).get() == "R(hello you)"


def test_a_class_may_run_the_function_of_its_base(app: Celery) -> None:
    class Greeting(BatchTask):
        abstract = True
        model = "m"

        def run(self, text: str) -> str:
            return f"hello {text}"

    class Loud(Greeting):
        name = "loud"

        def run(self, text: str) -> str:
            return super().run(text.upper())

    class Inherits(Loud):
        name = "inherits"

    for kind in (Loud, Inherits):
        task = app.register_task(kind())
        assert task.apply(("you",)).get() == "R(hello YOU)"
        assert task("you") == "R(hello YOU)"


def test_pydantic_arguments(app: Celery) -> None:
    def about(mail: Mail) -> str:
        return mail.text

    task = made(app, about, name="about", pydantic=True)
    assert task.apply(kwargs={"mail": {"text": "hi"}}).get() == "R(hi)"


def test_always_eager(app: Celery) -> None:
    app.conf.task_always_eager = True
    task = made(app, lambda text: text, name="eager", deadline="1h")

    assert task.delay("a").get() == "R(a)"
    assert (task.s("a") | task.s()).delay().get() == "R(R(a))"


def test_async_functions_are_refused_at_once(app: Celery) -> None:
    async def later() -> str:
        return "x"

    async def stream() -> Any:
        yield "x"

    for function in (later, stream):
        with pytest.raises(TypeError, match="is async"):
            batch_task(model="m")(function)
        with pytest.raises(TypeError, match="is async"):
            app.task(base=BatchTask, lazy=False, shared=False)(function)


def test_misspelt_options_are_named(app: Celery) -> None:
    with pytest.raises(TypeError, match="did you mean 'model'"):
        batch_task(modell="m")
    with pytest.raises(TypeError, match="did you mean 'postprocess'"):
        app.task(base=BatchTask, post_process=len, lazy=False, shared=False)(same)
    with pytest.raises(ValueError, match="not a duration"):
        batch_task(model="m", deadline="soon")


def test_bare_decorator() -> None:
    @batch_task
    def bare_one(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], "model": "m"}

    app = Celery("bare", broker="memory://")
    fake_runtime.install(app)
    try:
        assert bare_one.apply(("a",)).get() == "R(a)"
    finally:
        app.close()


def test_deadlines_travel_in_a_header(app: Celery) -> None:
    import datetime as dt
    import time

    from lowtide.carried import DEADLINE_HEADER

    sent: list[dict[str, Any]] = []
    from celery import signals

    def note(headers: dict[str, Any], **_: Any) -> None:
        sent.append(headers)

    signals.before_task_publish.connect(note)
    try:
        task = made(app, lambda text: text, name="due", deadline="1h")
        task.delay("a")
        task.apply_async(("a",), deadline=60)
        task.apply_async(("a",), deadline=dt.datetime.fromtimestamp(5, dt.UTC))
        task.s("a").set(deadline="2h").delay()
        made(app, lambda text: text, name="whenever").delay("a")
        task_ref("due", app).apply_async(("a",), deadline="3h")
    finally:
        signals.before_task_publish.disconnect(note)

    left = [
        None if (due := h.get(DEADLINE_HEADER)) is None else round((due - time.time()) / 60)
        for h in sent
    ]
    assert left[:2] + left[3:] == [60, 1, 120, None, 180]
    assert sent[2][DEADLINE_HEADER] == 5
    assert all("<str: 1>" in h["argsrepr"] for h in sent)


def test_chords_are_kept_long_enough(app: Celery) -> None:
    made(app, lambda: "x", name="any").name  # noqa: B018 - binds it
    assert app.conf.result_chord_expires == CHORD_EXPIRES

    other = Celery("other", broker="memory://", set_as_current=False)
    other.conf.result_chord_expires = 7
    task_ref("any", other)
    assert other.conf.result_chord_expires == 7


def test_many_calls_go_in_messages_of_bounded_size() -> None:
    few: list[Any] = [([str(n)], {}) for n in range(1_201)]
    large = [(["x" * 400_000], {"k": 1}) for _ in range(5)]

    assert [len(part) for part in _messages(few)] == [CALLS_IN_MESSAGE, CALLS_IN_MESSAGE, 201]
    assert [len(part) for part in _messages(large)] == [2, 2, 1]
    assert [call for part in _messages(few) for call in part] == few


def test_prompts_are_veiled_unless_shown(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    assert veil(("secret", 5, None, ["secret"])) == "(<str: 6>, 5, None, <list: 1>)"
    assert veil({"text": "secret"}) == "{text=<str: 6>}"
    assert veil(list("abcdefghij")).endswith("<str: 1>, …)")
    assert not shows_prompts(app)
    monkeypatch.setenv("LOWTIDE_SHOW_PROMPTS", "true")
    assert shows_prompts(app)
    app.conf.lowtide = {"show_prompts": False}
    assert not shows_prompts(app)


def test_prompts_are_shown_where_the_file_says_so(
    app: Celery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("LOWTIDE_SHOW_PROMPTS=true\n")
    monkeypatch.chdir(tmp_path)
    hidden._in_file.cache_clear()
    assert shows_prompts(app)
    monkeypatch.setenv("LOWTIDE_SHOW_PROMPTS", "false")
    assert not shows_prompts(app)
    hidden._in_file.cache_clear()


def test_importing_lowtide_stays_light() -> None:
    code = """
import sys
import lowtide
from lowtide import batch_task, BatchTask, chat, task_ref
from celery import Celery
app = Celery("light", broker="memory://", backend="cache+memory://")

@batch_task(model="m", deadline="6h")
def summarize(text): return chat(text)

@app.task(base=BatchTask, model="m")
def other(text): return text

result = summarize.delay("a")
other.apply_async(("a",), deadline=60)
(summarize.s("a") | other.s()).apply_async()
task_ref("x").delay("b")
summarize.delay_many(["a", "b"])
heavy = "openai sqlmodel sqlalchemy pydantic pydantic_settings typer rich alembic lowtide.ledger lowtide.settings lowtide.resume".split()
print([name for name in heavy if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
