"""How long Celery keeps a chord that waits for answers."""

from __future__ import annotations

from celery import Celery

CHORD_EXPIRES = 14 * 86400


def extend(app: Celery) -> None:
    """Lets chords of `app` wait longer than a provider takes.

    Celery forgets a chord after `result_expires`, one day by default; its body then never runs
    and its result hangs. The size of the chord is kept by whoever sends it, its parts by the
    workers: both sides need this. An app that sets `result_chord_expires` itself is left alone.
    """
    if app.conf.get("result_chord_expires") is None:
        app.conf.result_chord_expires = CHORD_EXPIRES
