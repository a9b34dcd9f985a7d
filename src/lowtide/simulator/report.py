"""Accounts of what was run and paid for."""

from __future__ import annotations

from typing import Any

from lowtide.simulator.store import Store

_TOTALS = """
SELECT mode, count(*), sum(billed), sum(CASE WHEN billed THEN input_tokens ELSE 0 END),
       sum(CASE WHEN billed THEN output_tokens ELSE 0 END)
FROM runs GROUP BY mode"""
_MODELS = """
SELECT model, mode, sum(billed), sum(input_tokens), sum(output_tokens)
FROM runs WHERE billed GROUP BY model, mode ORDER BY model, mode"""
_REQUESTS = """
SELECT custom_id, body_hash, count(*), sum(billed), group_concat(DISTINCT batch_id),
       group_concat(DISTINCT mode)
FROM runs GROUP BY custom_id, body_hash HAVING count(*) >= ? ORDER BY min(id)"""


def totals(store: Store) -> dict[str, Any]:
    """What was run and billed in all, by mode and by model; tokens are those billed.

    ``billed_twice`` counts the (custom_id, body) pairs of batches that were paid for more than
    once, ``runs_twice`` those that ran more than once.
    """
    modes = {
        mode: {"ran": ran, "billed": billed, "input_tokens": used, "output_tokens": made}
        for mode, ran, billed, used, made in store.db.execute(_TOTALS)
    }
    twice = store.db.execute(
        "SELECT count(*), coalesce(sum(billed > 1), 0) FROM (SELECT sum(billed) AS billed FROM runs"
        " WHERE mode = 'batch' GROUP BY custom_id, body_hash HAVING count(*) > 1)"
    ).fetchone()
    keys = ("ran", "billed", "input_tokens", "output_tokens")
    return {
        **{key: sum(mode[key] for mode in modes.values()) for key in keys},
        "ran_twice": twice[0],
        "billed_twice": twice[1],
        "modes": modes,
        "models": [
            {"model": m, "mode": mode, "billed": b, "input_tokens": i, "output_tokens": o}
            for m, mode, b, i, o in store.db.execute(_MODELS)
        ],
    }


def requests(store: Store, least: int = 1) -> list[dict[str, Any]]:
    """For every custom_id and body hash how often it ran, was billed, and where.

    Args:
        store: what has been recorded.
        least: leave out what ran less often.
    """
    return [
        {
            "custom_id": custom_id,
            "body_hash": digest,
            "ran": ran,
            "billed": billed,
            "batches": batches.split(",") if batches else [],
            "modes": modes.split(","),
        }
        for custom_id, digest, ran, billed, batches, modes in store.db.execute(_REQUESTS, (least,))
    ]
