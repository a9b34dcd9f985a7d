"""Keeps what is dear to ask for a moment, so that many who look cost as much as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

_SHORTEST = 1.0
# Asking takes at most this share of the time.
_ASKING_SHARE = 0.1
_MOST = 200

T = TypeVar("T")


class Cache:
    """Values by key; each is kept the longer, the longer it took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Any, ...], tuple[float, Any]] = {}

    def get(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The value kept under `key`, or what `make` gives."""
        with self._lock:
            until, value = self._kept.get(key, (0.0, None))
        began = time.monotonic()
        if began < until:
            return value
        made = make()
        now = time.monotonic()
        with self._lock:
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[key] = (now + max(_SHORTEST, (now - began) / _ASKING_SHARE), made)
        return made
