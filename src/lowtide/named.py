"""Result backends by name: `LOWTIDE_RESULTS` says where each is."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

if TYPE_CHECKING:
    from celery import Celery

_local = threading.local()


def named_backend(name: str, app: Celery | None = None) -> Any:
    """The Celery result backend of that name, for `AsyncResult(id, backend=…)`.

    One for each thread, as Celery's own are: few of them may be shared.

    Args:
        name: As in the setting `results`.
        app: The app; the current one when left out.

    Raises:
        SettingsError: The settings have no backend of that name, or its URL cannot be used.
    """
    from lowtide import runtime
    from lowtide.carried import RESULTS
    from lowtide.destinations import check
    from lowtide.errors import SettingsError

    rt = runtime.of(app)
    known: dict[tuple[int, int, str], tuple[Any, Any]] = _local.__dict__.setdefault("known", {})
    key = (os.getpid(), id(rt), name)
    if key not in known:
        check(rt.settings, [RESULTS + name])
        url = rt.settings.results[name].get_secret_value()
        try:
            kind, address = backends.by_url(url, rt.app.loader)
            if issubclass(kind, RPCBackend | DisabledBackend):
                raise TypeError("its results are not for others to read")
            made = kind(app=rt.app, url=address)
        except Exception as error:
            raise SettingsError(
                f"The result backend {name!r} of LOWTIDE_RESULTS cannot be used: "
                f"{type(error).__name__}; write a URL as for result_backend of a Celery app, but "
                "not rpc://.",
                {"destination": name},
            ) from error
        # With its runtime, whose id stands for it as long as it lives.
        known[key] = (made, rt)
    return known[key][0]
