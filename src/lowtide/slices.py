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
        """Stores slice `number` of a batch for `ttl` seconds."""
        key = keys.batch_slice(self._namespace, batch_id, number)
        self._redis.set(key, data, px=max(1, round(ttl * 1000)))

    def get(self, batch_id: str, number: int) -> bytes | None:
        """The slice, or None when it is gone and the answers have to be fetched again."""
        found: bytes | None = self._redis.get(keys.batch_slice(self._namespace, batch_id, number))
        return found

    def delete(self, batch_id: str, *numbers: int) -> int:
        """Forgets slices; returns how many there were."""
        if not numbers:
            return 0
        names = [keys.batch_slice(self._namespace, batch_id, number) for number in numbers]
        return int(self._redis.unlink(*names))
