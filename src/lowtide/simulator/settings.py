"""What can be set: from Python, from flags, or from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lowtide.simulator.services import SERVICES
from lowtide.simulator.turnaround import AT_ONCE, Turnaround, parse

# Enqueued input tokens per model of an organisation, where it has no value of its own.
TIER_TOKENS = {
    1: 900_000,
    2: 2_000_000,
    3: 100_000_000,
    4: 1_000_000_000,
    5: 15_000_000_000,
}
KNOWN_MODELS = (
    "gpt-*",
    "chatgpt-*",
    "codex-*",
    "o1*",
    "o3*",
    "o4*",
    "text-embedding-*",
    "omni-moderation-*",
    "text-moderation-*",
    "davinci-002",
    "babbage-002",
    "dall-e-*",
    "sora-*",
)


@dataclass(frozen=True, slots=True)
class Account:
    """An organisation: whoever shows ``key`` sees its files and batches, and no others.

    Attributes:
        name: shown in reports and in error texts.
        key: the API key; empty accepts any key.
        tier: 1 to 5, sets the enqueued tokens per model.
        enqueued_tokens: own limits by model name, they go before the tier's.
    """

    name: str = "org-lowtide"
    key: str = ""
    tier: int = 5
    enqueued_tokens: Mapping[str, int] = field(default_factory=dict)

    def token_limit(self, model: str) -> int:
        """Enqueued input tokens that this account may have for ``model``."""
        return self.enqueued_tokens.get(model, TIER_TOKENS[self.tier])


@dataclass(frozen=True, slots=True)
class Limits:
    """The service's limits, as its guide gives them; bytes and counts."""

    max_requests: int = 50_000
    max_bytes: int = 209_715_200
    max_file_bytes: int = 536_870_912
    max_embedding_inputs: int = 50_000
    creations_per_hour: int = 2_000


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """Everything a simulator can be told.

    Attributes:
        state: directory of database and files; None means a temporary one.
        service: whom to play, one of ``services.SERVICES``.
        seed: of all randomness: order of answers, turnaround, faults.
        validating, working, finalizing, cancelling: how long each phase of a batch takes.
        models: patterns of the models that exist (``*`` accepts any).
        accounts: who may call; one that accepts every key by default.
        limits: sizes and rates.
        faults: fault rules as tables, see ``lowtide.simulator.faults``.
        chaos: 0 (none) to 3 (storm): a ready mix of faults.
        upstream: base URL of an OpenAI-compatible server that answers instead of the built-in.
        upstream_key: key for it.
        upstream_concurrency: requests at the same time.
        webhook_url, webhook_secret: an endpoint to begin with; more through the admin API.
    """

    state: Path | None = None
    service: str = "openai"
    seed: int = 0
    validating: Turnaround = AT_ONCE
    working: Turnaround = AT_ONCE
    finalizing: Turnaround = AT_ONCE
    cancelling: Turnaround = AT_ONCE
    models: tuple[str, ...] = KNOWN_MODELS
    accounts: tuple[Account, ...] = (Account(),)
    limits: Limits = Limits()
    faults: tuple[Mapping[str, Any], ...] = ()
    chaos: int = 0
    upstream: str | None = None
    upstream_key: str | None = None
    upstream_concurrency: int = 8
    webhook_url: str | None = None
    webhook_secret: str | None = None

    def account(self, key: str) -> Account | None:
        """The account that ``key`` opens, or None."""
        return next((a for a in self.accounts if a.key in ("", key)), None)

    def named(self, name: str) -> Account:
        """The account of that name (for a batch that was made before a restart)."""
        return next((a for a in self.accounts if a.name == name), self.accounts[0])


_PHASES = ("validating", "working", "finalizing", "cancelling")


def from_mapping(table: Mapping[str, Any], base: SimulatorSettings) -> SimulatorSettings:
    """Settings from a TOML document's top table, over ``base``.

    Keys are the attributes of ``SimulatorSettings``; ``delay`` is another word for ``working``,
    ``[limits]``, ``[[accounts]]`` and ``[[faults]]`` are tables.

    Raises:
        ValueError: for an unknown key (with the nearest right one) or a bad value.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = "working" if key == "delay" else key
        if name in _PHASES:
            values[name] = parse(value)
        elif name == "service" and value not in SERVICES:
            raise ValueError(f"no service {value!r}; there are {', '.join(SERVICES)}")
        elif name == "limits":
            values[name] = replace(base.limits, **_checked(value, Limits, "limits."))
        elif name == "accounts":
            values[name] = tuple(Account(**_checked(a, Account, "accounts.")) for a in value)
        elif name == "state":
            values[name] = Path(value)
        elif name in ("faults", "models"):
            values[name] = tuple(value)
        else:
            values[name] = value
    return replace(base, **_checked(values, SimulatorSettings, ""))


def from_toml(path: Path, base: SimulatorSettings | None = None) -> SimulatorSettings:
    """Read a TOML file.

    Raises:
        ValueError: what is wrong in it, with the file's name.
        OSError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return from_mapping(tomllib.load(file), base or SimulatorSettings())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(table: Mapping[str, Any], kind: type[Any], prefix: str) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f", did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"unknown setting {prefix}{key}{hint}")
    return dict(table)
