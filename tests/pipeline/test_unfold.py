"""A bulk message on a worker that cannot accept its calls, or had it before."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from celery.app.trace import trace_task
from celery.backends.redis import RedisBackend
from redis.exceptions import ConnectionError as RedisConnectionError

from lowtide import BatchTask, bulk, early, finality, settings, unfold
from lowtide.runtime import Runtime


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Message:
    """A bulk message that was sent, and a worker that runs its task."""

    rt: Runtime
    arguments: tuple[Any, ...]

    @property
    def ids(self) -> list[str]:
        return list(self.arguments[3])

    @property
    def body(self) -> str:
        """The id of the chord's body."""
        return str(self.arguments[1]["embed"]["chord"]["options"]["task_id"])

    def run(self, **request: Any) -> str | None:
        """What Celery's tracer tells of the task: the class of the error that ended it."""
        name = uuid.uuid4().hex
        task = self.rt.app.tasks[bulk.EXPAND]
        about = {
            "id": name,
            "task": task.name,
            "root_id": name,
            "delivery_info": {"exchange": "", "routing_key": "bulk", "redelivered": False},
            **request,
        }
        _, info, _, _ = trace_task(task, name, self.arguments, {}, about, app=self.rt.app)
        return None if info is None else type(info.retval).__name__

    def state(self, task_id: str) -> str:
        return str(self.rt.app.backend.get_task_meta(task_id, cache=False)["status"])

    def parts(self) -> int:
        """How many members the chord knows to have ended."""
        backend: Any = self.rt.app.backend
        key = backend.get_key_for_group(self.arguments[1]["group"], ".j")
        return int(backend.client.zcard(key))


@pytest.fixture
def sent(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Message]:
    def text(text: str) -> str:
        if text == "bad":
            raise ValueError("no such text")
        return text

    def join(parts: list[Any]) -> None: ...

    rt.app.task(name="tests.text", base=BatchTask, model="gpt-5-mini", shared=False)(text)
    rt.app.task(name="tests.join", shared=False)(join)
    rt.app.finalize()
    monkeypatch.setattr(unfold, "PAUSE", 0.0)

    def send(
        texts: list[str], *, name: str = "tests.text", chord: bool = False, **options: Any
    ) -> Message:
        seen: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(rt.app, "send_task", lambda _, arguments, **__: seen.append(arguments))
            body = rt.app.tasks["tests.join"].s() if chord else None
            bulk.delay_many(rt.app, name, texts, chord=body, **options)
        return Message(rt, seen[0])

    return send


AGAIN: dict[str, Any] = {
    "delivery_info": {"exchange": "", "routing_key": "bulk", "redelivered": True}
}


def test_no_call_is_lost_while_the_result_backend_is_away(
    rt: Runtime, sent: Callable[..., Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = sent(["a", "b"])

    def away(*_: Any) -> None:
        raise RedisConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(finality, "stored", away)
        assert message.run(**AGAIN) == "Returned"

    assert message.run(**AGAIN) is None
    assert [rt.where(task_id) is not None for task_id in message.ids] == [True, True]


def test_an_error_that_nobody_foresaw_loses_no_call(
    rt: Runtime, sent: Callable[..., Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = sent(["a", "b"])
    slept: list[float] = []

    def broken(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr(unfold, "accept", broken)
        patch.setattr(unfold, "PAUSE", 7.0)
        patch.setattr(rt.clock, "sleep", slept.append)
        assert message.run() == "Returned"

    assert slept == [7.0]
    assert message.run() is None
    assert [rt.where(task_id) is not None for task_id in message.ids] == [True, True]


def test_calls_of_a_task_that_no_worker_knows_fail(sent: Callable[..., Message]) -> None:
    message = sent(["a", "b"], name="tests.nowhere", chord=True)

    assert message.run() is None

    assert [message.state(task_id) for task_id in message.ids] == ["FAILURE"] * 2
    assert message.state(message.body) == "FAILURE"


@pytest.mark.parametrize(
    "again", [AGAIN, {"redelivered": True}], ids=["by the broker", "sent anew"]
)
def test_a_chord_is_told_of_members_that_ended_as_their_worker_died(
    sent: Callable[..., Message], monkeypatch: pytest.MonkeyPatch, again: dict[str, Any]
) -> None:
    message = sent(["bad", "a"], chord=True)

    told = RedisBackend.on_chord_part_return
    lives: list[bool] = []

    def dies_first(*args: Any, **options: Any) -> Any:
        if not lives:
            raise Killed
        return told(*args, **options)

    monkeypatch.setattr(RedisBackend, "on_chord_part_return", dies_first)
    with pytest.raises(Killed):
        message.run()
    lives.append(True)
    assert (message.state(message.ids[0]), message.parts()) == ("FAILURE", 0)

    assert message.run(**again) is None

    assert message.parts() == 1


def test_destinations_are_told_of_calls_that_ended_as_their_worker_died(
    rt: Runtime, sent: Callable[..., Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = {"crm": {"webhook": "https://crm.example/", "secret": "c2VjcmV0LXNlY3JldC1zZWNyZXQ="}}
    rt.settings.destinations.update(settings.load({"destinations": crm}).destinations)
    message = sent(["bad", "a"], deliver_to=["crm"])

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(early, "tell", dies)
        with pytest.raises(Killed):
            message.run()
    assert message.state(message.ids[0]) == "FAILURE"

    assert message.run(**AGAIN) is None

    told = rt.ledger.take("crm", "test", 9, 60)
    assert [each.custom_id for each in told] == [f"{message.ids[0]}.0.0"]


def test_a_message_waits_while_another_worker_sends_its_chords_body(
    rt: Runtime, sent: Callable[..., Message]
) -> None:
    message = sent(["bad"], chord=True)
    backend: Any = rt.app.backend
    backend.mark_as_failure(message.ids[0], ValueError("no such text"))
    claim = backend.get_key_for_group(message.arguments[1]["group"], ".c")
    backend.client.set(claim, b"another")

    assert message.run(**AGAIN) == "Returned"

    backend.client.delete(claim)
    assert message.run(**AGAIN) is None
    assert message.state(message.body) == "FAILURE"


def test_after_a_loss_each_open_call_goes_on_in_its_own_message(
    rt: Runtime, sent: Callable[..., Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = sent(["bad", "a", "b"])
    rt.app.backend.mark_as_failure(message.ids[0], ValueError("no such text"))
    seen: list[tuple[dict[str, Any], Any, Any]] = []

    def note(_: Any, __: str, made: Any, **options: Any) -> None:
        seen.append((made.headers, made.body[0], options["queue"].name))

    monkeypatch.setitem(rt.app.amqp.__dict__, "send_task_message", note)

    assert message.run(retries=1) is None

    assert [headers["id"] for headers, _, _ in seen] == message.ids[1:]
    assert [list(args) for _, args, _ in seen] == [["a"], ["b"]]
    assert [headers["group_index"] for headers, _, _ in seen] == [1, 2]
    assert {queue for _, _, queue in seen} == {"bulk"}
    assert not any(rt.where(task_id) for task_id in message.ids)
