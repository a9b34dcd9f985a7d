"""The provider accounts: reachable, and with a key that may use the Batch API."""

from __future__ import annotations

import secrets

from lowtide.doctor.finding import Finding, bad, good
from lowtide.errors import AccountPaused, LowtideError
from lowtide.runtime import Runtime

_DEFAULT = "default"


def providers(runtime: Runtime) -> list[Finding]:
    """One free call per account: the list of its newest batches."""
    return [_account(runtime, name) for name in sorted({*runtime.settings.accounts, _DEFAULT})]


def _account(runtime: Runtime, name: str) -> Finding:
    part = "Provider" if name == _DEFAULT else f"Provider {name}"
    try:
        # Nothing is that new, so one page answers it.
        runtime.provider(name).adopt(secrets.token_hex(8), since=runtime.clock.now() + 86_400)
    except AccountPaused as error:
        return bad(part, error.message, "Set OPENAI_API_KEY, or look at the account's limits.")
    except LowtideError as error:
        return bad(part, error.message, "Look at OPENAI_BASE_URL and the network.")
    return good(part, f"account {name} may list batches")
