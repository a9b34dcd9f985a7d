"""The name of every Redis key.

All share the hash tag `{<namespace>}`, so a deployment's keys are in one slot of a cluster and
one script may touch several of them. The scripts in `lua/` build the same names from the prefix.

A key is permanent (`lanes`, `sealed`, `timers`, `paused`, `limits`, `turnarounds`), or
belongs to a buffer that lives (`lane`, `lane_lines`, `batch_lines`), or has a TTL (all others).
"""

from __future__ import annotations

PERMANENT = frozenset({"lanes", "sealed", "timers", "paused", "limits", "turnarounds"})
"""Names of the keys that stay, without the prefix."""


def prefix(namespace: str) -> str:
    """What every key of a deployment starts with, such as "{lowtide}:"."""
    return f"{{{namespace}}}:"


def lanes(namespace: str) -> str:
    """SET of the lane keys that are used, or were within `state_ttl`; permanent."""
    return f"{{{namespace}}}:lanes"


def sealed(namespace: str) -> str:
    """HASH batch id -> "<lane> <sealed_at> <requests> <bytes> <tokens>"; permanent.

    The index of the batches that are sealed and not yet in the ledger.
    """
    return f"{{{namespace}}}:sealed"


def timers(namespace: str) -> str:
    """ZSET "<verb>:<id>" scored by due time, epoch seconds; permanent."""
    return f"{{{namespace}}}:timers"


def lane(namespace: str, lane_key: str) -> str:
    """HASH batch, requests, bytes, tokens, opened_at, due of the open buffer; absent without."""
    return f"{{{namespace}}}:lane:{lane_key}"


def lane_lines(namespace: str, lane_key: str) -> str:
    """HASH custom_id -> line of the open buffer."""
    return f"{{{namespace}}}:lane:{lane_key}:lines"


def batch(namespace: str, batch_id: str) -> str:
    """HASH, the summary of a batch for `.info`; TTL `state_ttl`."""
    return f"{{{namespace}}}:batch:{batch_id}"


def batch_lines(namespace: str, batch_id: str) -> str:
    """HASH custom_id -> line of a batch that is sealed and not yet in the ledger."""
    return f"{{{namespace}}}:batch:{batch_id}:lines"


def batch_slices(namespace: str, batch_id: str) -> str:
    """HASH: number → slice of the batch's answers, until they are delivered."""
    return f"{{{namespace}}}:batch:{batch_id}:slices"


def task(namespace: str, task_id: str) -> str:
    """HASH "<retries>.<step>" -> "<batch id> <position> [custom_id]"; TTL `state_ttl`.

    Where each request of a task is; its presence is what refuses a second append.
    """
    return f"{{{namespace}}}:task:{task_id}"


def begun(namespace: str, batch_id: str) -> str:
    """HASH custom_id -> how often its delivery was begun by itself, after a loss; TTL."""
    return f"{{{namespace}}}:batch:{batch_id}:begun"


def answer(namespace: str, digest: str) -> str:
    """STRING, zstd of [epoch seconds, response body], for later calls of the same; TTL."""
    return f"{{{namespace}}}:answer:{digest}"


def turnarounds(namespace: str) -> str:
    """HASH lane key -> seconds that its last batches took at the provider; permanent."""
    return f"{{{namespace}}}:turnarounds"


def limits(namespace: str) -> str:
    """HASH "<account>:<model>" -> enqueued tokens that the provider allows; permanent."""
    return f"{{{namespace}}}:limits"


def probe(namespace: str, account: str) -> str:
    """STRING, there while a suspended account is not to be tried; TTL."""
    return f"{{{namespace}}}:probe:{account}"


def created(namespace: str, account: str, hour: int) -> str:
    """STRING, how many batches an account created in an hour since the epoch; TTL."""
    return f"{{{namespace}}}:created:{account}:{hour}"


def scanned(namespace: str) -> str:
    """STRING, there while the last look through all keys is less than an hour ago; TTL."""
    return f"{{{namespace}}}:scanned"


def idle(namespace: str) -> str:
    """STRING, there while lanes that nobody uses were looked for less than an hour ago; TTL."""
    return f"{{{namespace}}}:idle"


def paused(namespace: str) -> str:
    """HASH lane key or account -> "<epoch seconds> <reason>", what is paused; permanent.

    By hand, or by the provider's refusal; a destination is there as "to:" and its name.
    """
    return f"{{{namespace}}}:paused"


def webhook(namespace: str, webhook_id: str) -> str:
    """STRING, there once a webhook was taken, so that its copies are known; TTL."""
    return f"{{{namespace}}}:webhook:{webhook_id}"


def webhook_counts(namespace: str) -> str:
    """HASH "taken", "repeated", "refused" -> how many webhooks were; TTL `state_ttl`."""
    return f"{{{namespace}}}:webhooks"


def alerted(namespace: str, destination: str) -> str:
    """STRING, there while it was said not long ago that a destination is not told; TTL."""
    return f"{{{namespace}}}:alerted:{destination}"


def told_counts(namespace: str) -> str:
    """HASH "<destination> accepted" or "… refused" -> how many messages; TTL `state_ttl`."""
    return f"{{{namespace}}}:messages"


def failures(namespace: str) -> str:
    """HASH kind -> how often it was met; TTL `state_ttl`."""
    return f"{{{namespace}}}:failures"


def told(namespace: str, hostname: str) -> str:
    """STRING "<serial> <epoch seconds>" that a worker wrote last; TTL."""
    return f"{{{namespace}}}:told:{hostname}"


def watched(namespace: str) -> str:
    """STRING, there while a worker is set to send task events; TTL."""
    return f"{{{namespace}}}:watched"


def tick(namespace: str, hostname: str) -> str:
    """STRING, epoch seconds of a worker's last noted tick; TTL."""
    return f"{{{namespace}}}:tick:{hostname}"


def ledgers(namespace: str) -> str:
    """HASH worker -> "<epoch seconds> <what tells its ledger> <where it is>"; TTL."""
    return f"{{{namespace}}}:ledgers"
