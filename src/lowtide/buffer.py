"""The lanes' buffers in Redis: what is accepted and not yet in the ledger.

Each lane has at most one open buffer. It becomes a batch when it is sealed, by one rename, and
is dropped when the ledger has it. The scripts in `lua/` make each change at once or not at all,
and each may be run again: what was done is refused or finds nothing.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from redis import Redis

from lowtide import keys, repair
from lowtide.clock import Clock
from lowtide.decide import seal_by
from lowtide.held import Appended, LaneStatus, SealedBatch, Where, parse_sealed, parse_where
from lowtide.lane import Lane
from lowtide.request import Request, pack
from lowtide.scripts import Argument, Call, run
from lowtide.timers import script_time

if TYPE_CHECKING:
    from lowtide.settings import Settings

# A lane's turnaround is asked of Redis once a minute: it changes with each batch, not each call.
_TURNAROUND_TTL = 60.0
_MOST_TURNAROUNDS = 10_000
_turnarounds: dict[tuple[str, str], tuple[float | None, float]] = {}
_HEAD = struct.Struct(">II")  # size of the line in bytes, tokens; then the blob
_MOST_TOKENS = 2**32 - 1
_CALL_REQUESTS = 500  # one script run keeps the server busy for some ms at most
_CALL_BYTES = 4_000_000
_PAGE_BYTES = 4_000_000


class Buffer:
    """The buffers of a deployment.

    Args:
        redis: Where they are.
        settings: For the namespace, the thresholds and `state_ttl`.
        clock: The system's clock stands for the server's time; any other one goes before it,
            so that tests move time by hand.
    """

    def __init__(self, redis: Redis, settings: Settings, clock: Clock) -> None:
        self._redis: Any = redis  # its types allow for str replies, which `connect` rules out
        self._settings = settings
        self._clock = clock
        self._ns = settings.namespace
        self._ttl = max(1, round(settings.state_ttl))

    def append(self, requests: Iterable[Request]) -> Appended:
        """Puts requests into the open buffers of their lanes, in one round trip.

        A request whose custom_id is known is refused, so the same call is harmless. A buffer is
        sealed before a request that would take it over a threshold, and when it reaches one.
        Whoever gets an id in `sealed` should send that batch on; if the answer is lost, the
        timer "submit:<batch>", due now, does.

        Raises:
            redis.RedisError: Redis cannot be reached or is full. Some lanes may have taken
                theirs; append all again.
        """
        calls = [
            self._append_call(lane, chunk)
            for lane, members in _by_lane(requests).items()
            for chunk in _chunks(members)
        ]
        added, refused, sealed = 0, 0, list[str]()
        for reply in run(self._redis, calls):
            added, refused = added + reply[0], refused + reply[1]
            sealed += [batch_id.decode() for batch_id in reply[2:]]
        return Appended(added, refused, tuple(sealed))

    def seal(self, lane_key: str, *, only_if_due: bool) -> str | None:
        """Closes the lane's open buffer; one of those who try at once gets the batch.

        Args:
            lane_key: As `Lane.key` gives it.
            only_if_due: Leave a buffer alone whose age and deadlines do not ask for it yet.

        Returns:
            The batch's id; None when nothing waits, or nothing is due.
        """
        batch_id = run(self._redis, [self._call("seal", lane_key, ("1" if only_if_due else "0",))])
        return None if batch_id[0] is None else batch_id[0].decode()

    def peek(self, lane_key: str, custom_ids: Sequence[str]) -> dict[str, bytes]:
        """The blobs of those of `custom_ids` that are in the lane's open buffer."""
        name = keys.lane_lines(self._ns, lane_key)
        lines: Any = self._redis.hmget(name, list(custom_ids))
        return {
            custom_id: line[_HEAD.size :]
            for custom_id, line in zip(custom_ids, lines, strict=True)
            if line is not None
        }

    def remove(self, lane_key: str, custom_ids: Sequence[str]) -> list[str]:
        """Takes requests out of the lane's open buffer, as for a revoked or escalated call.

        Their task entries stay, so that a redelivered message does not bring them back. Whether
        a request was there is told once: note first what becomes of it (the ledger refuses it in
        a later batch), then remove it, so that an answer that is lost loses nothing.

        Returns:
            The custom_ids that were there; the others are sealed or gone already.
        """
        calls = [
            self._call("remove", lane_key, custom_ids[at : at + _CALL_REQUESTS])
            for at in range(0, len(custom_ids), _CALL_REQUESTS)
        ]
        return [name.decode() for reply in run(self._redis, calls) for name in reply]

    def sealed(self) -> list[SealedBatch]:
        """The batches that are sealed and not yet dropped, oldest first."""
        found = self._redis.hgetall(keys.sealed(self._ns))
        return sorted(
            (parse_sealed(batch_id, entry) for batch_id, entry in found.items()),
            key=lambda batch: batch.batch_id,
        )

    def sealed_batch(self, batch_id: str) -> SealedBatch | None:
        """One batch that is sealed and not yet dropped; None when there is no such."""
        entry = self._redis.hget(keys.sealed(self._ns), batch_id)
        return None if entry is None else parse_sealed(batch_id.encode(), entry)

    def lines(self, batch_id: str, count: int = 250) -> Iterator[list[tuple[str, bytes]]]:
        """The requests of a sealed batch, by custom_id, as the ledger reads them.

        Args:
            batch_id: A batch of `sealed()`.
            count: About how many to a page; fewer when they are large.

        Yields:
            Pages of (custom_id, blob) as `request.pack` made it.
        """
        batch = self.sealed_batch(batch_id)
        if batch is not None and batch.size:
            count = max(1, min(count, _PAGE_BYTES * batch.requests // batch.size))
        key = keys.batch_lines(self._ns, batch_id)
        names = sorted(self._redis.hkeys(key))
        for at in range(0, len(names), count):
            page = names[at : at + count]
            yield [
                (name.decode(), line[_HEAD.size :])
                for name, line in zip(page, self._redis.hmget(key, page), strict=True)
                if line is not None
            ]

    def drop(self, batch_id: str) -> None:
        """Forgets a sealed batch, because the ledger has it; its timer stays."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hdel(keys.sealed(self._ns), batch_id)
        pipe.unlink(keys.batch_lines(self._ns, batch_id))
        pipe.execute()

    def where(self, task_ids: Sequence[str]) -> list[Where | None]:
        """Where the latest request of each task is, in two round trips.

        Returns:
            In the order of `task_ids`; None for a task that has no request on its way.
        """
        pipe = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hgetall(keys.task(self._ns, task_id))
        entries = pipe.execute()
        found = [parse_where(task, fields) for task, fields in zip(task_ids, entries, strict=True)]
        ids = sorted({where.batch_id for where in found if where is not None})
        for batch_id in ids:
            pipe.hgetall(keys.batch(self._ns, batch_id))
        summaries = dict(zip(ids, pipe.execute(), strict=True))
        return [where and where.with_summary(summaries[where.batch_id]) for where in found]

    def moved(self, batch_id: str, requests: Iterable[tuple[str, str]]) -> None:
        """Notes that requests are in another batch now, as after a failed one was split.

        Args:
            batch_id: Where they are.
            requests: (task_id, custom_id) in their order there.
        """
        pipe = self._redis.pipeline(transaction=False)
        for position, (task_id, custom_id) in enumerate(requests):
            field = ".".join(custom_id.rsplit(".", 2)[1:])
            name = "" if custom_id == f"{task_id}.{field}" else custom_id
            pipe.hset(keys.task(self._ns, task_id), field, f"{batch_id} {position} {name}")
            pipe.expire(keys.task(self._ns, task_id), self._ttl)
        pipe.execute()

    def forget(self, task_ids: Sequence[str]) -> None:
        """Forgets where tasks are, because their outcomes are delivered."""
        if task_ids:
            self._redis.unlink(*(keys.task(self._ns, task_id) for task_id in task_ids))

    def set_summary(self, batch_id: str, **fields: str | float | None) -> None:
        """Notes what `.info` of a batch's tasks shows; None forgets a field."""
        key = keys.batch(self._ns, batch_id)
        pipe = self._redis.pipeline(transaction=True)
        known = {k: v for k, v in fields.items() if v is not None}
        gone = [name for name in fields if name not in known]
        if known:
            pipe.hset(key, mapping=known)
        if gone:
            pipe.hdel(key, *gone)
        pipe.expire(key, self._ttl)
        pipe.execute()

    def since(self, batch_id: str, what: str) -> float:
        """Since when something is so with a batch, epoch seconds: now when asked first."""
        key = keys.batch(self._ns, batch_id)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hsetnx(key, f"{what}_since", self._clock.now())
        pipe.hget(key, f"{what}_since")
        pipe.expire(key, self._ttl)
        return float(pipe.execute()[1])

    def lanes(self) -> list[LaneStatus]:
        """Every known lane, with the fill of its open buffer, in the order of their keys."""
        names = sorted(name.decode() for name in self._redis.smembers(keys.lanes(self._ns)))
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(keys.lane(self._ns, name))
        return [
            LaneStatus.of(name, head, self._settings.thresholds(Lane.parse(name)))
            for name, head in zip(names, pipe.execute(), strict=True)
        ]

    def forget_lanes(self, lane_keys: Sequence[str]) -> int:
        """Forgets lanes, and how long their batches took; returns how many.

        One that has an open buffer by now stays.
        """
        if not lane_keys:
            return 0
        lanes = keys.lanes(self._ns)
        pipe = self._redis.pipeline(transaction=True)
        pipe.srem(lanes, *lane_keys)
        pipe.hdel(keys.turnarounds(self._ns), *lane_keys)
        for lane_key in lane_keys:
            pipe.exists(keys.lane_lines(self._ns, lane_key))
        found = pipe.execute()[2:]
        used = [lane for lane, is_used in zip(lane_keys, found, strict=True) if is_used]
        if used:
            self._redis.sadd(lanes, *used)
        return len(lane_keys) - len(used)

    def rebuild(self, *, scan: bool | None = None) -> int:
        """Puts back what is missing of timers and indexes, from the lines that are there.

        Args:
            scan: Whether to look through all keys for lanes and batches that no index knows;
                by default once an hour, by whichever replica comes first.

        Returns:
            How many entries were missing.
        """
        return repair.rebuild(self._redis, self._ns, self._clock, self._call, scan=scan)

    def _append_call(self, lane: Lane, chunk: Sequence[tuple[Request, bytes]]) -> Call:
        limits = self._settings.thresholds(lane)
        args: list[Argument] = [limits.max_requests, limits.max_bytes, limits.max_tokens]
        for request, line in chunk:
            args += (request.custom_id, line, self._seal_by(request))
        tasks = [keys.task(self._ns, request.task_id) for request, _ in chunk]
        return self._call("append", lane.key, args, tasks)

    def _seal_by(self, request: Request) -> float | str:
        """When the buffer is to be sealed for this request at the latest; "" for whenever."""
        now = self._clock.now()
        times = [] if request.max_wait is None else [now + request.max_wait]
        if request.deadline is not None:
            turnaround = self.turnaround(request.lane.key)
            reserve = self._settings.escalate_reserve
            times.append(seal_by(request.deadline, now, reserve, turnaround))
        return min(times, default="")

    def turnaround(self, lane_key: str) -> float | None:
        """Seconds that the lane's last batches took at the provider; None where none ended."""
        known = _turnarounds.get((self._ns, lane_key))
        now = self._clock.monotonic()
        if known is None or now - known[1] > _TURNAROUND_TTL:
            told: Any = self._redis.hget(keys.turnarounds(self._ns), lane_key)
            known = (None if told is None else float(told), now)
            if len(_turnarounds) >= _MOST_TURNAROUNDS:
                _turnarounds.clear()
            _turnarounds[self._ns, lane_key] = known
        return known[0]

    def note_turnaround(self, lane_key: str, seconds: float) -> None:
        """Notes how long the lane's batches take at the provider."""
        self._redis.hset(keys.turnarounds(self._ns), lane_key, f"{seconds:.3f}")

    def _call(
        self,
        name: str,
        lane_key: str,
        args: Sequence[Argument] = (),
        more_keys: Sequence[str] = (),
    ) -> Call:
        """A run of one of the scripts of the open buffer; see lua/buffer.lua."""
        names = (
            keys.lanes(self._ns),
            keys.sealed(self._ns),
            keys.timers(self._ns),
            keys.lane(self._ns, lane_key),
            keys.lane_lines(self._ns, lane_key),
            *more_keys,
        )
        common: tuple[Argument, ...] = (
            script_time(self._clock),
            keys.prefix(self._ns),
            lane_key,
            secrets.randbits(24),
            self._ttl,
            self._settings.thresholds(Lane.parse(lane_key)).max_wait,
        )
        return Call(name, names, (*common, *args))


def _by_lane(requests: Iterable[Request]) -> dict[Lane, list[Request]]:
    lanes: dict[Lane, list[Request]] = {}
    for request in requests:
        lanes.setdefault(request.lane, []).append(request)
    return lanes


def _chunks(requests: Sequence[Request]) -> Iterator[list[tuple[Request, bytes]]]:
    """Requests with their lines as Redis holds them, so many as one script run should take."""
    chunk: list[tuple[Request, bytes]] = []
    total = 0
    for request in requests:
        head = _HEAD.pack(request.line_size, min(request.tokens, _MOST_TOKENS))
        line = head + pack(request)
        if chunk and (len(chunk) >= _CALL_REQUESTS or total + len(line) > _CALL_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append((request, line))
        total += len(line)
    if chunk:
        yield chunk
