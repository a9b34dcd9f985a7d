"""Providers: who runs the batches. One protocol, made from the accounts in the settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lowtide.errors import SettingsError
from lowtide.providers.protocol import BatchError, Counts, Provider, RemoteBatch

if TYPE_CHECKING:
    from lowtide.settings import Account, Settings

__all__ = ["BatchError", "Counts", "Provider", "RemoteBatch", "make_provider"]

DEFAULT_ACCOUNT = "default"


def make_provider(account: str, settings: Settings) -> Provider:
    """The provider of an account; it connects when it is first used.

    What the account leaves open is read from `OPENAI_API_KEY`, `OPENAI_BASE_URL` and so on, in
    the environment or in `.env`.

    Raises:
        SettingsError: No account of that name is set, or it asks for what the service lacks.
    """
    from lowtide.providers.openai import OpenAIProvider

    chosen = account_of(account, settings)
    secret = chosen.api_key.get_secret_value() if chosen.api_key else None
    return OpenAIProvider(
        account,
        api_key=secret or environment(chosen.api_key_env or "OPENAI_API_KEY"),
        base_url=chosen.base_url or environment("OPENAI_BASE_URL"),
        organization=chosen.organization or environment("OPENAI_ORG_ID"),
        project=chosen.project or environment("OPENAI_PROJECT_ID"),
        profile=settings.profile(account),
        window=chosen.window,
    )


def is_set(account: str, settings: Settings) -> bool:
    """Whether there is an account of that name; the default one is always there."""
    return account == DEFAULT_ACCOUNT or account in settings.accounts


def account_of(name: str, settings: Settings) -> Account:
    """How the account `name` is reached.

    Raises:
        SettingsError: No account of that name is set.
    """
    from lowtide.settings import Account

    found = settings.accounts.get(name)
    if found is None and name == DEFAULT_ACCOUNT:
        return Account()
    if found is None:
        known = ", ".join(sorted({DEFAULT_ACCOUNT, *settings.accounts}))
        raise SettingsError(
            f"No provider account is named {name!r}; LOWTIDE_ACCOUNTS has: {known}.",
            {"account": name},
        )
    return found


def environment(name: str) -> str | None:
    """A variable of the environment or of `.env`; None when it is unset or empty."""
    from dotenv import dotenv_values

    return os.environ.get(name) or dotenv_values(".env").get(name) or None
