"""Webhooks: signed as Standard Webhooks say, retried for 72 hours, sometimes sent twice."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from lowtide.simulator.clock import VirtualClock
from lowtide.simulator.faults import Faults
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.store import Store

EVENTS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
_GIVE_UP = 72 * 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 4 * 3600.0
_TIMEOUT = 5.0
_SENDERS = 4
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hook:
    """An endpoint that hears of batches.

    Attributes:
        id: ``we_…``.
        url: where events are posted.
        secret: ``whsec_`` and the key in base64.
        events: which events, of ``EVENTS``.
        account: whose batches.
    """

    id: str
    url: str
    secret: str
    events: tuple[str, ...]
    account: str


@dataclass(frozen=True, slots=True)
class _Due:
    seq: int
    event_id: str
    body: bytes
    created_at: float
    attempts: int
    url: str
    secret: str


def new_secret() -> str:
    """A signing secret: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: ``v1,`` and HMAC-SHA256 of ``{id}.{timestamp}.{body}``."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Hooks:
    """Endpoints and the deliveries to them; a thread of its own sends.

    Args:
        store: keeps endpoints and deliveries.
        clock: the simulator's; the signature's timestamp is real time, since receivers compare it
            with theirs.
        faults: lost, late, doubled and badly signed events.
    """

    def __init__(self, store: Store, clock: VirtualClock, faults: Faults) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._condition = threading.Condition()
        self._changed = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ---- endpoints
    def add(
        self, url: str, events: Sequence[str], secret: str | None, account: str
    ) -> dict[str, Any]:
        """Add an endpoint.

        Raises:
            ValueError: for an event that does not exist, or a bad URL or secret.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"not an http URL: {url!r}")
        wrong = set(events) - set(EVENTS)
        if wrong:
            raise ValueError(f"unknown events: {sorted(wrong)}; there are {', '.join(EVENTS)}")
        secret = secret or new_secret()
        base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        hook = Hook(f"we_{secrets.token_hex(12)}", url, secret, tuple(events or EVENTS), account)
        self._store.db.execute(
            "INSERT INTO hooks VALUES (?, ?, ?, ?, ?)",
            (hook.id, hook.url, hook.secret, ",".join(hook.events), hook.account),
        )
        return asdict(hook)

    def endpoints(self) -> list[Hook]:
        """All endpoints."""
        rows = self._store.db.execute("SELECT id, url, secret, events, account FROM hooks")
        return [Hook(i, url, key, tuple(ev.split(",")), acc) for i, url, key, ev, acc in rows]

    def remove(self, hook_id: str) -> bool:
        """Take an endpoint away; what is not delivered yet goes with it."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM deliveries WHERE hook_id = ?", (hook_id,))
            return db.execute("DELETE FROM hooks WHERE id = ?", (hook_id,)).rowcount > 0

    def deliveries(self, limit: int = 100) -> list[dict[str, Any]]:
        """The latest deliveries: ``next_at`` is None when it is over, ``status`` the last answer
        (None: none yet, 0: no connection).
        """
        names = ("event_id", "hook_id", "created_at", "next_at", "attempts", "status", "body")
        rows = self._store.db.execute(
            "SELECT event_id, hook_id, created_at, next_at, attempts, status, body FROM deliveries"
            " ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
        shown = [dict(zip(names, row, strict=True)) for row in rows]
        for item in shown:
            item["type"] = orjson.loads(item.pop("body"))["type"]
        return shown

    # ---- EndListener
    def note(self, db: sqlite3.Connection, batch: BatchRecord, at: float) -> None:
        """Put down what has to be sent, in the transaction that ends the batch."""
        event = f"batch.{batch.status}"
        hooks = [h for h in self.endpoints() if event in h.events and h.account == batch.account]
        if not hooks:
            return
        acting = {rule.kind: rule for rule in self._faults.webhook(event)}
        if "webhook_lost" in acting:
            return
        late = acting.get("webhook_late")
        due = at + (float(late.params["seconds"]) if late else 0.0)
        event_id = f"evt_{secrets.token_hex(16)}"
        body = orjson.dumps(
            {
                "id": event_id,
                "object": "event",
                "created_at": int(at),
                "type": event,
                "data": {"id": batch.id},
            }
        )
        forged = "webhook_bad_signature" in acting
        copies = 2 if "webhook_duplicate" in acting else 1
        for hook in hooks:
            db.executemany(
                "INSERT INTO deliveries (event_id, hook_id, body, created_at, next_at, attempts,"
                " forged) VALUES (?, ?, ?, ?, ?, 0, ?)",
                [(event_id, hook.id, body, at, due, int(forged))] * copies,
            )

    def wake(self) -> None:
        """Something may be due."""
        with self._condition:
            self._changed = True
            self._condition.notify_all()

    # ---- the thread
    def start(self) -> None:
        """Start the thread that sends."""
        self._thread = threading.Thread(target=self._loop, name="lowtide-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is not delivered waits for the next start."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread:
            self._thread.join()

    def _loop(self) -> None:
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="lowtide-webhook") as pool:
            while not self._stopping:
                self._changed = False
                try:
                    next_at = self.run_once(pool)
                except Exception:
                    log.exception("sending webhooks failed in a pass; it goes on")
                    next_at = self._clock.now() + 1.0
                with self._condition:
                    if not self._changed and not self._stopping:
                        self._condition.wait(self._pause(next_at))

    def _pause(self, next_at: float | None) -> float | None:
        if next_at is None or self._clock.frozen:
            return None
        return max(0.0, min(next_at - self._clock.now(), 3600.0))

    def run_once(self, pool: ThreadPoolExecutor) -> float | None:
        """Send all that is due; returns when the next is."""
        rows = self._store.db.execute(
            "SELECT d.seq, d.event_id, d.body, d.created_at, d.attempts, h.url,"
            " CASE WHEN d.forged THEN '' ELSE h.secret END FROM deliveries d"
            " JOIN hooks h ON h.id = d.hook_id WHERE d.next_at <= ? ORDER BY d.next_at LIMIT 64",
            (self._clock.now(),),
        ).fetchall()
        due = [_Due(*row) for row in rows]
        for item, status in zip(due, pool.map(_post, due), strict=True):
            self._settle(item, status)
        self._faults.keep()
        row = self._store.db.execute("SELECT min(next_at) FROM deliveries").fetchone()
        return row[0] if row else None

    def _settle(self, item: _Due, status: int) -> None:
        now = self._clock.now()
        pause = min(_FIRST_PAUSE * 2**item.attempts, _LONGEST_PAUSE)
        over = 200 <= status < 300 or now + pause > item.created_at + _GIVE_UP
        self._store.db.execute(
            "UPDATE deliveries SET attempts = attempts + 1, status = ?, next_at = ? WHERE seq = ?",
            (status, None if over else now + pause, item.seq),
        )


def _post(item: _Due) -> int:
    """Send one event; the status of the answer, 0 when there was none."""
    timestamp = int(time.time())
    url = urlsplit(item.url)
    connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connect(url.hostname or "", url.port, timeout=_TIMEOUT)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "lowtide-simulator",
        "webhook-id": item.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(item.secret or new_secret(), item.event_id, timestamp, item.body),
    }
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.request("POST", path, item.body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
