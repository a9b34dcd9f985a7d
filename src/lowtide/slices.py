"""Answers on their way from the replica that fetched them to those that deliver them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis

from lowtide import keys

if TYPE_CHECKING:
    from lowtide.settings import Settings


class Slices:
    """Some answers of a batch each; they go by themselves, as they can be fetched again.

    Args:
        redis: Where they are.
        settings: For the namespace.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis: Any = redis  # its types allow for str replies, which `connect` rules out
        self._namespace = settings.namespace

    def put(self, batch_id: str, number: int, data: bytes, ttl: float) -> None:
        """Stores slice `number` of a batch; the batch's slices live `ttl` seconds from now."""
        key = keys.batch_slices(self._namespace, batch_id)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(key, number, data)
        pipe.pexpire(key, max(1, round(ttl * 1000)))
        pipe.execute()

    def get(self, batch_id: str, number: int) -> bytes | None:
        """The slice, or None when it is gone and the answers have to be fetched again."""
        found: bytes | None = self._redis.hget(keys.batch_slices(self._namespace, batch_id), number)
        return found

    def numbers(self, batch_id: str) -> list[int]:
        """Which slices of the batch are there, in order."""
        return sorted(map(int, self._redis.hkeys(keys.batch_slices(self._namespace, batch_id))))

    def delete(self, batch_id: str, number: int) -> int:
        """Forgets a slice; returns how many of the batch are left."""
        key = keys.batch_slices(self._namespace, batch_id)
        pipe = self._redis.pipeline(transaction=False)
        pipe.hdel(key, number)
        pipe.hlen(key)
        return int(pipe.execute()[1])

    def begin(self, batch_id: str, custom_id: str, ttl: float) -> int:
        """Counts that a request's delivery begins by itself; returns how often it has, with this.

        Args:
            ttl: Seconds from now that the batch's counts live.
        """
        key = keys.begun(self._namespace, batch_id)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hincrby(key, custom_id, 1)
        pipe.pexpire(key, max(1, round(ttl * 1000)))
        return int(pipe.execute()[0])

    def begun(self, batch_id: str) -> dict[str, int]:
        """custom_id → how often its delivery was begun by itself."""
        found = self._redis.hgetall(keys.begun(self._namespace, batch_id))
        return {name.decode(): int(count) for name, count in found.items()}

    def clear(self, batch_id: str) -> None:
        """Forgets all slices of the batch, and what was counted of them."""
        of_batch = (keys.batch_slices, keys.begun)
        self._redis.unlink(*[key(self._namespace, batch_id) for key in of_batch])
