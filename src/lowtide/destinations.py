"""Who else is told how a task ended: webhooks and Redis streams, by name, from the settings alone.

A call names a destination and never says where it is: whoever may send calls cannot make a worker
post to an address of their choice.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from lowtide.carried import OWN, RESULTS
from lowtide.durations import parse_duration, parse_size
from lowtide.errors import SettingsError

if TYPE_CHECKING:
    from lowtide.settings import Settings

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
"""Name of a destination or of a result backend."""
KEPT = OWN + "kept"
"""Name in the outbox of what nobody is told: results that the ledger keeps for a replay."""


class Destination(BaseModel, extra="forbid"):
    """Where a result is told to: one of `webhook` and `stream`.

    Attributes:
        webhook: URL to post to, signed as Standard Webhooks say.
        secret: What it is signed with, "whsec_" and base64; two, parted by a space, while one
            takes the other's place.
        secret_env: Environment variable that holds it, in place of `secret`.
        timeout: Seconds that the receiver may take; never more than a third of a lease.
        stream: Key of a Redis stream.
        redis_url: Its Redis; the buffers' if unset.
        maxlen: About how many entries the stream keeps.
    """

    webhook: str | None = None
    secret: SecretStr | None = None
    secret_env: str | None = None
    timeout: Annotated[float, BeforeValidator(parse_duration)] = 10.0
    stream: str | None = None
    redis_url: SecretStr | None = None
    maxlen: Annotated[int, BeforeValidator(parse_size), Field(ge=1)] = 100_000

    @model_validator(mode="after")
    def _one_kind(self) -> Destination:
        if (self.webhook is None) == (self.stream is None):
            raise ValueError("name either a webhook or a stream")
        if self.webhook is not None:
            parts = urlsplit(self.webhook)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("webhook is not a URL such as https://crm.example/results")
            if (self.secret is None) == (self.secret_env is None):
                raise ValueError("a webhook needs a secret or a secret_env to be signed with")
        return self

    def secrets(self, name: str) -> list[bytes]:
        """The keys to sign with.

        Args:
            name: The destination's name, for messages.

        Raises:
            SettingsError: There is none, or it is none.
        """
        from lowtide.providers import environment

        value = (
            self.secret.get_secret_value() if self.secret else environment(self.secret_env or "")
        )
        if not value:
            raise SettingsError(
                f"Destination {name} has no secret: the variable {self.secret_env} is not set "
                "here; the workers need it.",
                {"destination": name},
            )
        try:
            return [key(each) for each in value.split()]
        except (binascii.Error, ValueError):
            raise SettingsError(
                f"The secret of destination {name} is not whsec_ and base64.",
                {"destination": name},
            ) from None


def key(secret: str) -> bytes:
    """The key that a signing secret stands for.

    Raises:
        binascii.Error: It starts with "whsec_" and no base64 follows.
    """
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


def is_known(settings: Settings, name: str) -> bool:
    """Whether the settings have this name in the outbox."""
    try:
        check(settings, [name])
    except SettingsError:
        return False
    return True


def check(settings: Settings, names: Iterable[str]) -> None:
    """Refuses names in the outbox that the settings do not have.

    Raises:
        SettingsError: It names the ones that there are.
    """
    for name in names:
        plain = name.removeprefix(RESULTS)
        if plain != name:
            what, known, setting = "result backend", list(settings.results), "LOWTIDE_RESULTS"
        else:
            what, known = "destination", list(settings.destinations)
            setting = "LOWTIDE_DESTINATIONS"
        if plain not in known:
            there = f"it has {', '.join(sorted(known))}" if known else "it is empty"
            raise SettingsError(
                f"No {what} is named {plain!r} in {setting}; {there}.", {"destination": plain}
            )
