"""Ending tasks in bulk, with each kind of result backend, and what is left when one fails."""

from __future__ import annotations

import json
import math
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from kombu.exceptions import OperationalError
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from lowtide import BatchTask, RequestRejected
from lowtide.calls import to_call
from lowtide.connect import connect
from lowtide.errors import KilledItsWorker
from lowtide.ids import custom_id
from lowtide.resume import Resumed, Resumption, resume
from lowtide.steps import Asks
from tests.canvas import fake_runtime
from tests.canvas.accepted import accepted

ANSWER = fake_runtime.answer("/v1/chat/completions", {"messages": [{"content": "a"}]})
HOST = "w1@test"


def summ(text: str) -> str:
    return text


def talk(text: str) -> Any:
    first = yield text
    second = yield f"{text} {first.text}"
    return second.text


def raises(answer: Any) -> Any:
    raise KeyError("in postprocess")


def exits(answer: Any) -> Any:
    sys.exit(3)


def leaves(text: str) -> Any:
    yield text
    sys.exit(3)


def unjsonable(answer: Any) -> Any:
    return {object()}


def made_app(backend: str | None, redis_url: str) -> Celery:
    app = Celery("ends", broker=redis_url, backend=backend, set_as_current=False)
    app.conf.task_default_queue = "links"
    fake_runtime.install(app)
    for function, options in (
        (summ, {}),
        (talk, {}),
        (leaves, {}),
        (summ, {"name": "exits", "postprocess": exits}),
        (summ, {"name": "raises", "postprocess": raises}),
        (summ, {"name": "unjsonable", "postprocess": unjsonable}),
    ):
        given = {"name": function.__name__, **options}
        app.task(base=BatchTask, model="m", shared=False, **given)(function)
    app.task(name="note", shared=False)(_note)
    app.finalize()
    return app


def _note(value: Any) -> Any:
    return value


@pytest.fixture
def url(canvas_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    url = canvas_server.removesuffix("/0") + "/14"
    connect(url).flushdb()
    monkeypatch.setenv("CANVAS_REDIS", url)
    return url


@pytest.fixture
def app(url: str) -> Iterator[Celery]:
    app = made_app(url, url)
    yield app
    app.close()


@pytest.fixture
def redis(url: str) -> Any:
    return connect(url)


def item(
    app: Celery, task: str, task_id: str, *, outcome: Any = ANSWER, **fields: Any
) -> Resumption:
    """A request of `task` with its outcome, as it would come back from the provider."""
    step = Asks(to_call("a", model="m"), ends=task not in ("talk", "leaves"))
    return Resumption(accepted(app, task, task_id, step, ["a"], **fields), outcome)


def states_of(ends: list[Resumed]) -> list[str]:
    return [end.state for end in ends]


def queued(redis: Any) -> int:
    return int(redis.llen("links"))


def test_each_item_ends_for_itself(app: Celery, redis: Any) -> None:
    error = RequestRejected("no", {"batch": "batch_7"})
    broken = item(app, "summ", "broken")
    later = item(app, "summ", "later")
    items = [
        item(app, "summ", "good"),
        item(app, "summ", "refused", outcome=error),
        item(app, "raises", "raises"),
        item(app, "unjsonable", "unjsonable"),
        replace(broken, request=replace(broken.request, envelope=b"\x01\x99\x01")),
        replace(later, request=replace(later.request, envelope=b"\x09" + later.request.envelope[1:])),
        replace(later, request=replace(later.request, custom_id="u.0.0", task="elsewhere")),
        item(app, "summ", "good"),
        item(app, "summ", "last"),
    ]  # fmt: skip

    ends = resume(app, items, HOST)

    assert [end.custom_id for end in ends] == [one.custom_id for one in items]
    assert states_of(ends) == [
        "SUCCESS", "FAILURE", "FAILURE", "FAILURE", "FAILURE", "UNKNOWN", "UNKNOWN", "SKIPPED", "SUCCESS",
    ]  # fmt: skip
    results = {
        name: app.AsyncResult(name)
        for name in ("good", "refused", "raises", "unjsonable", "broken")
    }
    assert results["good"].get(timeout=5) == "R(a)"
    refused = results["refused"].result
    assert isinstance(refused, RequestRejected)
    assert refused.details == {
        "batch": "batch_7", "task": "summ", "task_id": "refused", "lane": "default:/v1/chat/completions:m",
    }  # fmt: skip
    assert type(results["raises"].result).__name__ == "KeyError"
    assert type(results["unjsonable"].result).__name__ == "EncodeError"
    assert type(results["broken"].result).__name__ == "EnvelopeError"
    assert app.AsyncResult("later").state == states.PENDING


def test_who_exits_its_process_after_its_answer_fails_alone(app: Celery) -> None:
    given = (("exits", "e"), ("leaves", "l"), ("summ", "good"))
    items = [item(app, task, task_id) for task, task_id in given]

    assert states_of(resume(app, items, HOST)) == ["FAILURE", "FAILURE", "SUCCESS"]
    for name in "el":
        error = app.AsyncResult(name).result
        assert isinstance(error, KilledItsWorker)
        assert "sys.exit(3)" in error.message


def test_what_is_final_is_left_as_it_is(app: Celery, redis: Any) -> None:
    app.backend.mark_as_done("done", "first")
    app.backend.mark_as_failure("failed", ValueError("before"))
    app.backend.mark_as_revoked("revoked", "revoked")
    app.backend.mark_as_retry("retried", ValueError("again"))
    link = [app.signature("note")]
    names = ("done", "failed", "revoked", "retried")

    ends = resume(app, [item(app, "summ", name, callbacks=link) for name in names], HOST)

    assert states_of(ends) == ["SKIPPED", "SKIPPED", "REVOKED", "SUCCESS"]
    assert app.AsyncResult("done").result == "first"
    assert queued(redis) == 1


def test_a_stored_value_that_cannot_be_read_keeps_no_other_back(app: Celery, redis: Any) -> None:
    names = ("good", "pickled", "number", "refused")
    for name, value in (("pickled", pickle.dumps({"status": "REVOKED"})), ("number", b"1")):
        redis.set(app.backend.get_key_for_task(name), value)
    redis.set(app.backend.get_key_for_task("refused"), pickle.dumps({}))
    items = [item(app, "summ", name) for name in names[:3]]

    ends = resume(app, [*items, item(app, "summ", "refused", outcome=RequestRejected("no"))], HOST)

    assert states_of(ends) == ["SUCCESS", "SUCCESS", "SUCCESS", "FAILURE"]
    assert [app.AsyncResult(name).state for name in names[:3]] == ["SUCCESS"] * 3


def test_who_lost_the_claim_sends_no_links_of_tasks_that_store_nothing(
    app: Celery, redis: Any
) -> None:
    links = {"callbacks": [app.signature("note")], "ignore_result": True}
    items = [item(app, "summ", name, **links) for name in "abc"]
    holds = iter([True, True, False])

    ends = resume(app, items, HOST, may_write=lambda: next(holds, False))

    assert queued(redis) < 3
    assert states_of(ends)[-1] == "AGAIN"
    assert states_of(ends).count("SUCCESS") == queued(redis)


def test_revokes_that_only_lowtide_knows(app: Celery, redis: Any) -> None:
    link = [app.signature("note")]
    ends = resume(app, [item(app, "summ", "r", callbacks=link)], HOST, revoked={"r"})

    assert states_of(ends) == ["REVOKED"]
    assert app.AsyncResult("r").state == states.REVOKED
    assert queued(redis) == 0


def test_a_generator_goes_on(app: Celery) -> None:
    (first,) = resume(app, [item(app, "talk", "t")], HOST)
    assert first.state == "CONTINUED"
    assert first.next is not None
    assert first.next.custom_id == custom_id("t", 0, 1)
    assert b"a R(a)" in first.next.body
    assert app.AsyncResult("t").state == states.PENDING

    # Its answer twice in one slice, beside the answer to the request before it.
    again = Resumption(first.next, ANSWER)
    ends = resume(app, [item(app, "talk", "t"), again, again], HOST)
    assert states_of(ends) == ["CONTINUED", "SUCCESS", "SKIPPED"]
    assert ends[0].next == replace(
        first.next, envelope=ends[0].next.envelope if ends[0].next else b""
    )
    assert app.AsyncResult("t").result == "R(a)"


def chord_of(app: Celery, size: int) -> dict[str, Any]:
    app.backend.set_chord_size("g", size)
    return dict(app.signature("note"), chord_size=size)


def member(app: Celery, index: int, body: dict[str, Any], **options: Any) -> Resumption:
    return item(app, "summ", f"m{index}", group="g", group_index=index, chord=body, **options)


def test_a_chord_is_left_in_redis_as_celery_leaves_it(app: Celery, redis: Any) -> None:
    keys = {name: f"celery-taskset-meta-g.{name}" for name in "jds"}

    def contents() -> Any:
        parts = redis.zrange(keys["j"], 0, -1, withscores=True)
        ttls = [redis.ttl(key) > 86_400 for key in keys.values()]
        return parts, redis.smembers(keys["d"]), ttls

    body = chord_of(app, 4)
    for index in range(3):
        context = Context({"id": f"m{index}", "group": "g", "group_index": index, "chord": body})
        app.backend.on_chord_part_return(context, states.SUCCESS, "R(a)")
    as_celery = contents()
    redis.delete(*keys.values())

    body = chord_of(app, 4)
    resume(app, [member(app, index, body) for index in range(3)], HOST)

    assert contents() == as_celery
    assert len(as_celery[0]) == 3
    assert queued(redis) == 0
    resume(app, [member(app, index, body) for index in (1, 3)], HOST)
    assert queued(redis) == 1
    # A part that comes when all is over brings nothing back.
    resume(app, [member(app, 2, body)], HOST)
    redis.delete("celery-task-meta-m1", "celery-task-meta-m2")
    resume(app, [member(app, index, body) for index in (1, 2)], HOST)
    assert not redis.exists(*keys.values())
    assert queued(redis) == 1


def test_the_body_of_a_chord_descends_from_the_member_told_last(app: Celery, redis: Any) -> None:
    body = chord_of(app, 2)

    resume(app, [member(app, index, body, root_id="root") for index in range(2)], HOST)

    headers = json.loads(redis.lindex("links", 0))["headers"]
    assert (headers["root_id"], headers["parent_id"]) == ("root", "m1")


@pytest.mark.parametrize("kind", ["db+sqlite:///{}/results.db", "file://{}", "cache+memory://"])
def test_chords_on_other_result_backends(
    url: str, redis: Any, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = made_app(kind.format(tmp_path), url)
    body = dict(app.signature("note"), chord_size=2)
    app.backend.set_chord_size("g", 2)
    refused = item(
        app, "summ", "m1", outcome=RequestRejected("no"), group="g", group_index=1, chord=body
    )

    ends = resume(app, [member(app, 0, body), refused], HOST)

    assert states_of(ends) == ["SUCCESS", "FAILURE"]
    assert isinstance(app.AsyncResult("m1").result, RequestRejected)
    assert "TypeError" not in caplog.text


def test_parts_of_several_chords_come_to_their_own(app: Celery, redis: Any) -> None:
    body = chord_of(app, 4)
    items = [
        item(app, "summ", f"{group}{index}", group=group, group_index=index, chord=body)
        for index in range(3)
        for group in "ab"
    ]

    resume(app, items, HOST)

    for group in "ab":
        parts = map(json.loads, redis.zrange(f"celery-taskset-meta-{group}.j", 0, -1))
        assert [part[1] for part in parts] == [f"{group}{index}" for index in range(3)]


def test_a_chord_whose_keys_hold_something_else_keeps_no_other_back(
    app: Celery, redis: Any
) -> None:
    app.backend.set_chord_size("odd", 3)
    app.backend.set_chord_size("good", 2)
    app.backend.set_chord_size("failed", 2)
    for group in ("odd", "failed"):
        # A release whose `result_chord_ordered` was another had told a part.
        redis.rpush(app.backend.get_key_for_group(group, ".j"), "x")
    bodies = {group: chord_of(app, size) for group, size in (("odd", 3), ("good", 2))}
    given = [("odd", 0), ("good", 0), ("odd", 1), ("good", 1), ("odd", 2)]
    items = [
        item(app, "summ", f"{group}-{n}", group=group, group_index=n, chord=bodies[group])
        for group, n in given
    ]
    body = chord_of(app, 2)
    refused = RequestRejected("no")
    items.append(item(app, "summ", "f", outcome=refused, group="failed", group_index=0, chord=body))

    ends = resume(app, items, HOST)

    assert states_of(ends) == ["AGAIN", "SUCCESS", "AGAIN", "SUCCESS", "AGAIN", "AGAIN"]
    assert queued(redis) == 1
    redis.delete(app.backend.get_key_for_group("odd", ".j"))
    assert states_of(resume(app, items[:-1], HOST)) == ["SKIPPED"] * 5
    assert queued(redis) == 2


def test_unordered_chords(url: str, redis: Any) -> None:
    app = made_app(url, url)
    app.conf.result_backend_transport_options = {"result_chord_ordered": False}
    body = chord_of(app, 3)

    resume(app, [member(app, index, body) for index in (0, 1, 1)], HOST)
    assert redis.llen("celery-taskset-meta-g.j") == 2
    resume(app, [member(app, 2, body)], HOST)

    assert queued(redis) == 1


def test_a_worker_that_died_before_it_told_the_chord(app: Celery, redis: Any) -> None:
    body = chord_of(app, 2)
    app.backend.mark_as_done("m0", "R(a)")
    app.backend.mark_as_done("m1", "R(a)")

    ends = resume(app, [member(app, 0, body), member(app, 1, body)], HOST)

    assert states_of(ends) == ["SKIPPED", "SKIPPED"]
    assert queued(redis) == 1


def test_a_revoked_member_fails_its_chord(app: Celery, redis: Any) -> None:
    body = chord_of(app, 2)
    body["options"]["task_id"] = "body"
    app.backend.mark_as_revoked("m0", "revoked")

    ends = resume(app, [member(app, 0, body), member(app, 1, body)], HOST)

    assert states_of(ends) == ["REVOKED", "SUCCESS"]
    assert app.AsyncResult("body").state == states.FAILURE


class Outage:
    """A result backend whose Redis fails `times` times from the `nth` write of results on."""

    def __init__(
        self, backend: Any, nth: int, patch: pytest.MonkeyPatch, times: float = math.inf
    ) -> None:
        self.writes = 0
        self.fails = lambda write: nth <= write < nth + times
        self.ensure = backend.ensure
        patch.setattr(backend, "ensure", self.fail)

    def fail(self, function: Any, args: Any, **policy: Any) -> Any:
        self.writes += 1
        if self.fails(self.writes - 1):
            raise RedisConnectionError("gone")
        return self.ensure(function, args, **policy)


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_nothing_counts_as_ended_that_may_not_be_stored(
    app: Celery, redis: Any, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    link = [app.signature("note")]
    items = [
        item(app, "summ", str(number), callbacks=link if number % 2 else None)
        for number in range(6)
    ]
    items.append(item(app, "summ", "refused", outcome=RequestRejected("no")))

    with monkeypatch.context() as patch:
        Outage(app.backend, nth, patch)
        ends = resume(app, items, HOST)
    sure = [end.custom_id for end in ends if end.state != "AGAIN"]
    assert len(sure) == 2 * nth
    assert all(app.AsyncResult(one.split(".")[0]).state == states.SUCCESS for one in sure)
    assert [end.custom_id for end in ends] == [one.custom_id for one in items]

    ends = resume(app, items, HOST)
    assert {end.state for end in ends} <= {"SUCCESS", "SKIPPED", "FAILURE"}
    assert [app.AsyncResult(str(number)).state for number in range(6)] == [states.SUCCESS] * 6
    assert app.AsyncResult("refused").state == states.FAILURE


def test_a_failure_that_could_not_be_stored_is_tried_again(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(app, "summ", "refused", outcome=RequestRejected("no")), item(app, "summ", "good")]

    with monkeypatch.context() as patch:
        Outage(app.backend, 0, patch)
        assert states_of(resume(app, items, HOST)) == ["AGAIN", "AGAIN"]

    assert states_of(resume(app, items, HOST)) == ["FAILURE", "SUCCESS"]


@pytest.mark.parametrize("hurdle", ["the backend is away", "the claim ran out"])
def test_a_failure_is_never_stored_as_what_kept_it_from_being_stored(
    app: Celery, redis: Any, monkeypatch: pytest.MonkeyPatch, hurdle: str
) -> None:
    """Celery's tracer stores that instead, and by then it may."""
    refused = item(app, "summ", "refused", outcome=RequestRejected("no"))
    claimed = iter([hurdle != "the claim ran out"])

    with monkeypatch.context() as patch:
        if hurdle == "the backend is away":
            Outage(app.backend, 0, patch, times=1)
        ends = resume(app, [refused], HOST, may_write=lambda: next(claimed, True))
    assert states_of(ends) == ["AGAIN"]
    assert redis.get("celery-task-meta-refused") is None

    assert states_of(resume(app, [refused], HOST)) == ["FAILURE"]
    assert isinstance(app.AsyncResult("refused").result, RequestRejected)


def test_a_chord_whose_last_part_was_not_counted_is_told_again(
    app: Celery, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = chord_of(app, 3)
    items = [member(app, index, body) for index in range(3)]
    resume(app, [items[0]], HOST)

    def gone(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(app.backend, "_lowtide_chord_part", gone)
        assert states_of(resume(app, items[1:], HOST)) == ["AGAIN", "AGAIN"]
    assert queued(redis) == 0

    assert states_of(resume(app, items[1:], HOST)) == ["SKIPPED", "SKIPPED"]
    assert queued(redis) == 1


def test_a_retry_that_the_broker_did_not_take_is_tried_again(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = app.tasks["summ"]

    def retrying(answer: Any) -> Any:
        raise task.retry(countdown=0)

    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("no broker")

    monkeypatch.setattr(task, "complete", retrying)
    with monkeypatch.context() as patch:
        patch.setattr(app, "send_task", refuse)
        assert states_of(resume(app, [item(app, "summ", "x")], HOST)) == ["AGAIN"]
    assert states_of(resume(app, [item(app, "summ", "x")], HOST)) == ["RETRY"]


def test_a_redis_that_cannot_be_asked_ends_nothing(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise RedisConnectionError("gone")

    monkeypatch.setattr(app.backend, "mget", gone)
    with pytest.raises(RedisConnectionError):
        resume(app, [item(app, "summ", "x")], HOST)


@pytest.mark.parametrize("kind", ["database", "file", "memory", "disabled", "rpc"])
def test_other_result_backends(url: str, redis: Any, tmp_path: Path, kind: str) -> None:
    backends = {
        "database": f"db+sqlite:///{tmp_path}/results.db",
        "file": f"file://{tmp_path}",
        "memory": "cache+memory://",
        "disabled": None,
        "rpc": "rpc://",
    }
    app = made_app(backends[kind], url)
    link = [app.signature("note")]
    items = [
        item(app, "summ", "a", callbacks=link, reply_to="replies"),
        item(app, "summ", "b", outcome=RequestRejected("no"), reply_to="replies"),
    ]

    assert states_of(resume(app, items, HOST)) == ["SUCCESS", "FAILURE"]
    assert queued(redis) == 1
    if kind in ("database", "file", "memory"):
        assert [app.AsyncResult(name).state for name in "ab"] == ["SUCCESS", "FAILURE"]
        assert states_of(resume(app, items, HOST)) == ["SKIPPED", "SKIPPED"]
        assert queued(redis) == 1


@pytest.mark.parametrize("kind", ["database", "file"])
def test_a_result_that_its_backend_cannot_hold_keeps_no_other_back(
    url: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    backend = f"file://{tmp_path}"
    if kind == "database":
        server = request.getfixturevalue("postgres_url")
        backend = server.replace("postgresql://", "db+postgresql+psycopg://")
    app = made_app(backend, url)
    names = ("a", "long" * 100, "b")

    ends = resume(app, [item(app, "summ", name) for name in names], HOST)

    assert states_of(ends) == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert [app.AsyncResult(name).state for name in "ab"] == ["SUCCESS", "SUCCESS"]
