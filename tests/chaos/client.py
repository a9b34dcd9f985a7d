"""The client: sends calls of every kind and knows what each must come to."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from celery import Celery, chain, chord, group, states
from redis import Redis
from redis.exceptions import RedisError

from lowtide.simulator.answers.chat import chat_completion

STREAM = "told"
"""Key of the stream that destination "feed" is."""
REJECTED = object()
"""What a call comes to that the provider refuses."""


def answer(prompt: str) -> str:
    """What the simulator answers to a prompt."""
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": prompt}]}
    made, _ = chat_completion(body, 0.0)
    return str(made["choices"][0]["message"]["content"])


@dataclass
class Client:
    """Sends calls; a call whose sending failed may or may not be on its way.

    Attributes:
        expected: Task id → what its result must be.
        kinds: How many calls of each kind were sent.
        unsure: Task ids of calls whose sending failed.
        roles: Task id → what it is, for people.
        ordinary: Ids of tasks that are no batch tasks: Celery alone answers for those.
    """

    app: Celery
    seed: int = 0
    expected: dict[str, Any] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    unsure: set[str] = field(default_factory=set)
    roles: dict[str, str] = field(default_factory=dict)
    ordinary: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._random = random.Random(self.seed)
        self._senders: dict[str, Callable[[], None]] = {
            "plain": self._plain,
            "chain": self._chain,
            "chord": self._chord,
            "steps": self._steps,
            "bad": self._bad,
            "many": self._many,
            "twice": self._twice,
            "shared": self._shared,
            "told": self._told,
        }

    def send(self, kind: str | None = None, count: int = 1) -> None:
        """Sends `count` calls of a kind; of a random one if None."""
        names = list(self._senders)
        for _ in range(count):
            chosen = kind or self._random.choices(names, (40, 10, 8, 15, 8, 4, 5, 6, 8))[0]
            known = len(self.expected)
            self._senders[chosen]()
            self.kinds[chosen] += 1
            for number, task_id in enumerate(list(self.expected)[known:]):
                self.roles[task_id] = f"{chosen} {number}"

    def _text(self) -> str:
        return f"Parcel number {next(self._numbers)} is at sea."

    def _task(self, name: str) -> Any:
        return self.app.tasks[f"chaos.{name}"]

    def _publish(self, wanted: dict[str, Any], publish: Callable[[], Any]) -> None:
        try:
            publish()
        except Exception:
            self.unsure.update(wanted)
        else:
            self.expected.update(wanted)

    def _one(self, name: str, text: str, wanted: Any) -> None:
        signature = self._task(name).s(text)
        task_id = signature.freeze().id
        self._publish({task_id: wanted}, signature.apply_async)

    def _plain(self) -> None:
        text = self._text()
        self._one("plain", text, answer(f"Summarise:\n\n{text}"))

    def _bad(self) -> None:
        self._one("bad", self._text(), REJECTED)

    def _steps(self) -> None:
        text = self._text()
        first = answer(f"Summarise:\n\n{text}")
        self._one("steps", text, [first, answer(f"Summarise:\n\n{first} Twice.")])

    def _twice(self) -> None:
        """One call whose message comes twice, as brokers may do."""
        text = self._text()
        signature = self._task("plain").s(text)
        task_id = signature.freeze().id

        def publish() -> None:
            signature.apply_async()
            self._task("plain").apply_async((text,), task_id=task_id)

        self._publish({task_id: answer(f"Summarise:\n\n{text}")}, publish)

    def _shared(self) -> None:
        """Three calls that ask the same."""
        text = self._text()
        for _ in range(3):
            self._one("shared", text, answer(f"Summarise:\n\n{text}"))

    def _told(self) -> None:
        """A call whose end a Redis stream is told of, too."""
        text = self._text()
        self._one("told", text, answer(f"Summarise:\n\n{text}"))

    def _chain(self) -> None:
        text = self._text()
        first = answer(f"Summarise:\n\n{text}")
        canvas = chain(self._task("plain").s(text), self._task("plain").s(), self._task("same").s())
        last = canvas.freeze()
        second = answer(f"Summarise:\n\n{first}")
        wanted = {last.parent.parent.id: first, last.parent.id: second, last.id: second}
        self.ordinary.add(last.id)
        self._publish(wanted, canvas.apply_async)

    def _chord(self) -> None:
        texts = [self._text() for _ in range(self._random.randint(2, 6))]
        answers = [answer(f"Summarise:\n\n{text}") for text in texts]
        header = group(self._task("plain").s(text) for text in texts)
        canvas = chord(header, self._task("join").s())
        # A chord makes its ids when it is sent, so a failed sending leaves nothing to ask for.
        try:
            result = canvas.apply_async()
        except Exception:
            self.kinds["unsent chord"] += 1
            return
        self.expected[result.id] = " | ".join(answers)
        self.ordinary.add(result.id)
        for member, wanted in zip(result.parent.results, answers, strict=True):
            self.expected[member.id] = wanted

    def _many(self) -> None:
        texts = [self._text() for _ in range(20)]
        try:
            results = self._task("plain").delay_many(texts)
        except Exception:
            self.kinds["unsent many"] += 1
            return
        for result, text in zip(results.results, texts, strict=True):
            self.expected[result.id] = answer(f"Summarise:\n\n{text}")


def told(redis: Redis) -> dict[str, set[str]]:
    """Task id → the different results that the stream was told of."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    entries: Any = redis.xrange(STREAM)
    for _, fields in entries:
        data = orjson.loads(fields[b"body"])["data"]
        found[data["task_id"]].add(str(data["result"]))
    return found


def results(redis: Redis, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The final results that the backend holds."""
    found: dict[str, dict[str, Any]] = {}
    ids = list(task_ids)
    for at in range(0, len(ids), 1000):
        some = ids[at : at + 1000]
        values: Any = redis.mget([f"celery-task-meta-{task_id}" for task_id in some])
        for task_id, value in zip(some, values, strict=True):
            meta = None if value is None else orjson.loads(value)
            if meta is not None and meta["status"] in states.READY_STATES:
                found[task_id] = meta
    return found


class Listener:
    """Hears every result that is written, to see what is written twice.

    A result whose connection broke may be sent again, byte for byte: that is one writing.
    """

    def __init__(self, redis: Redis) -> None:
        self.written: dict[str, set[bytes]] = {}
        self._redis = redis
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)

    @property
    def twice(self) -> dict[str, set[bytes]]:
        """Tasks with more than one final result."""
        return {task_id: seen for task_id, seen in self.written.items() if len(seen) > 1}

    def _listen(self) -> None:
        while not self._over.is_set():
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                pubsub.psubscribe("celery-task-meta-*")
                while not self._over.is_set():
                    message = pubsub.get_message(timeout=0.5)
                    if message is not None:
                        self._note(message["data"])
            except (RedisError, OSError):
                self._over.wait(0.1)
            finally:
                pubsub.close()

    def _note(self, data: bytes) -> None:
        meta = orjson.loads(data)
        if meta["status"] in states.READY_STATES:
            self.written.setdefault(meta["task_id"], set()).add(data)
