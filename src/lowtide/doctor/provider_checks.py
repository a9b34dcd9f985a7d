"""The provider accounts: reachable, and with a key that may use the Batch API."""

from __future__ import annotations

import contextlib

from redis import RedisError

from lowtide import control
from lowtide.doctor.finding import Finding, bad, good, risky
from lowtide.errors import AccountPaused, LowtideError, SettingsError
from lowtide.providers import account_of, environment
from lowtide.runtime import Runtime
from lowtide.shown import duration, without_password

_DEFAULT = "default"


def providers(runtime: Runtime) -> list[Finding]:
    """One free call per account, for the list of its newest batches; and what is paused."""
    accounts = sorted({*runtime.settings.accounts, _DEFAULT})
    found = [_account(runtime, name) for name in accounts]
    with contextlib.suppress(RedisError):  # its own check tells
        found += [_paused(runtime, pause) for pause in control.pauses(runtime).values()]
    return found


def _account(runtime: Runtime, name: str) -> Finding:
    part = "Provider" if name == _DEFAULT else f"Provider {name}"
    try:
        # Nothing is that new, so one page answers it.
        runtime.provider(name).adopt("lowtide-doctor", since=runtime.clock.now() + 86_400)
    except SettingsError:
        raise
    except AccountPaused as error:
        return bad(part, error.message, "Set OPENAI_API_KEY, or look at the account's limits.")
    except LowtideError as error:
        advice = "Look at OPENAI_BASE_URL, which usually ends in /v1, and the network."
        return bad(part, error.message, advice)
    url = account_of(name, runtime.settings).base_url or environment("OPENAI_BASE_URL")
    where = without_password(url) if url else "OpenAI"
    return good(part, f"account {name} may list batches at {where}")


def _paused(runtime: Runtime, pause: control.Pause) -> Finding:
    since = duration(max(0.0, runtime.clock.now() - pause.since))
    detail = f"{pause.subject} is paused for {since}: {pause.reason}"
    resume = f"`lowtide resume {pause.subject}`"
    if pause.by_provider:
        every = duration(runtime.settings.poll_max)
        return bad("Paused", detail, f"It is tried every {every}, and at once by {resume}.")
    return risky("Paused", detail, f"{resume} lets it go on.")
