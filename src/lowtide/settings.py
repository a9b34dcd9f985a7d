"""Settings: from the environment (`LOWTIDE_…`), from `.env`, or from `app.conf.lowtide`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic_settings
from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from lowtide.destinations import Destination, Name
from lowtide.durations import parse_duration, parse_size
from lowtide.errors import SettingsError
from lowtide.lane import Lane
from lowtide.providers import account_of, environment
from lowtide.providers.profiles import COMPATIBLE, PROFILES, Profile, profile_at, seconds

PREFIX = "LOWTIDE_"
# Names that the tests and the simulator read for themselves.
_OTHERS = frozenset(
    {
        "LOWTIDE_FAILPOINTS",
        "LOWTIDE_UPSTREAM_KEY",
        "LOWTIDE_WEBHOOK_SECRET",
    }
)
# A value of these may hold a password: errors do not repeat it.
_SECRET_ENDINGS = ("url", "backend", "token", "secret", "key")
_SECRET_PARTS = ("accounts", "results", "destinations")


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]


class Thresholds(BaseModel):
    """When a lane's buffer is sealed, whichever is reached first; and what may be enqueued."""

    max_requests: Annotated[Size, Field(ge=1, le=100_000)]
    max_bytes: Annotated[Size, Field(ge=1, le=200_000_000)]
    max_tokens: Annotated[Size, Field(ge=1)]
    max_wait: Duration
    enqueued_tokens: Annotated[Size, Field(ge=1)] | None = None


class LaneOverride(BaseModel, extra="forbid"):
    """Thresholds of one lane, model or account that differ from the general ones.

    Attributes:
        spend_cap_day: USD that all its answers together may cost in a UTC day.
    """

    max_requests: Annotated[Size, Field(ge=1, le=100_000)] | None = None
    max_bytes: Annotated[Size, Field(ge=1, le=200_000_000)] | None = None
    max_tokens: Annotated[Size, Field(ge=1)] | None = None
    max_wait: Duration | None = None
    enqueued_tokens: Annotated[Size, Field(ge=1)] | None = None
    spend_cap_day: Annotated[float, Field(ge=0)] | None = None


class Account(BaseModel, extra="forbid"):
    """How one provider account is reached; what is unset is read as the SDK reads it.

    Attributes:
        profile: Which service it is, when its `base_url` does not tell.
        window: Completion window, where the service offers several.
    """

    profile: str | None = None
    window: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    organization: str | None = None
    project: str | None = None
    webhook_secret: SecretStr | None = None

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in PROFILES:
            raise ValueError(f"there is no profile {value!r}; there are {', '.join(PROFILES)}")
        return value


class SetPrice(BaseModel, extra="forbid"):
    """What a model costs, in USD for a million tokens; what is unset is unknown.

    Attributes:
        input: Input tokens.
        output: Output tokens.
        cached: Input tokens read from the provider's cache; as other input when unset.
        batch: What a batch, or the flex tier, costs of this.
    """

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)] | None = None
    cached: Annotated[float, Field(ge=0)] | None = None
    batch: Annotated[float, Field(ge=0, le=1)] = 0.5


class Settings(BaseSettings):
    """All that can be set; each field is read from `LOWTIDE_` + its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    home: Path = Field(
        default=Path(".lowtide"), description="Folder for the embedded database and spool files"
    )
    namespace: str = Field(
        default="lowtide", pattern=r"^[A-Za-z0-9_.-]+$", description="Prefix of every Redis key"
    )
    queue: str = Field(default="lowtide", description="Celery queue of the pipeline's own tasks")
    deliver_queue: str | None = Field(
        default=None,
        description="Celery queue of the deliver steps, to scale them alone; QUEUE if unset",
    )
    redis_url: str | None = Field(
        default=None, description="Redis of the buffers; the app's broker or result Redis if unset"
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of the ledger; SQLite in HOME if unset"
    )
    broker_url: str | None = Field(
        default=None, description="Broker of lowtide's own worker; REDIS_URL if unset"
    )
    result_backend: str | None = Field(
        default=None, description="Result backend of lowtide's own worker; REDIS_URL if unset"
    )
    max_requests: Annotated[Size, Field(ge=1, le=100_000)] = Field(
        default=50_000,
        description="Requests at which a buffer is sealed; never more than the provider allows",
    )
    max_bytes: Annotated[Size, Field(ge=1, le=200_000_000)] = Field(
        default=100_000_000,
        description="Bytes of batch file at which a buffer is sealed; never more than the "
        "provider allows",
    )
    max_tokens: Annotated[Size, Field(ge=1)] = Field(
        default=1_000_000_000, description="Estimated input tokens at which a buffer is sealed"
    )
    max_wait: Duration = Field(default=60.0, description="Age at which a buffer is sealed")
    enqueued_tokens: Annotated[Size, Field(ge=1)] | None = Field(
        default=None,
        description="Input tokens that may be enqueued at the provider for each model; learned "
        "from its refusals if unset",
    )
    creations_per_hour: int = Field(
        default=2_000, ge=1, description="Batches that an account may create in an hour"
    )
    share_by: Literal["none", "tenant", "task"] = Field(
        default="none",
        description="Who has lanes of its own, so that each gets its share where room is scarce: "
        "nobody, each tenant, or each task",
    )
    lanes: dict[str, LaneOverride] = Field(
        default_factory=dict,
        description='Thresholds by lane, model or account, as JSON: {"gpt-5": {"max_wait": "10m"}}',
    )
    accounts: dict[str, Account] = Field(
        default_factory=lambda: {"default": Account()},
        description='Provider accounts by name, as JSON: {"eu": {"base_url": "…", '
        '"api_key_env": "EU_KEY", "profile": "azure"}}; "default" reads OPENAI_API_KEY and '
        "OPENAI_BASE_URL; the profile is told by the base_url where it can be",
    )
    prices: dict[str, SetPrice] = Field(
        default_factory=dict,
        description="Prices that go before the known ones, in USD for a million tokens: "
        '{"my-model": {"input": 0.2, "output": 0.8, "batch": 0.5}}',
    )
    spend_cap_day: float | None = Field(
        default=None,
        ge=0,
        description="USD that answers may cost in a UTC day; batches beyond it are held. In LANES "
        "for a lane, model or account alone",
    )
    task_spend_caps: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description='The same by task name, as JSON: {"tasks.summarize": 20}',
    )
    poll_min: Duration = Field(default=5.0, description="Shortest time between two status calls")
    poll_max: Duration = Field(default=1800.0, description="Longest time between two status calls")
    tick: Duration = Field(default=1.0, description="How often each worker looks for due work")
    lease: Duration = Field(default=60.0, description="How long a replica may hold one step")
    adopt_wait: Duration = Field(
        default=120.0,
        description="How long a batch whose creation is in doubt is looked for before it is "
        "created again, and an ended one for the name of its file",
    )
    stuck_after: Duration = Field(
        default=6 * 3600.0,
        description="How long past its window a batch may run before it is cancelled, its "
        "finished work used and the rest sent again; how long a missing result file is looked for",
    )
    escalate: bool = Field(
        default=True,
        description="Ask a faster service for what the batch cannot answer by its deadline; "
        "if not, such calls fail with DeadlineExceeded",
    )
    escalate_reserve: Duration = Field(
        default=900.0,
        description="How long before its deadline a call is escalated; a quarter of the time "
        "that it had, if that is less",
    )
    escalate_concurrency: int = Field(
        default=8, ge=1, description="Escalated calls that run at the same time, of all replicas"
    )
    escalate_per_day: float | None = Field(
        default=None, ge=0, description="USD that escalated calls may cost in a UTC day"
    )
    flex: bool = Field(
        default=True, description="Try the flex tier, at batch price, before the standard one"
    )
    retry_delay: Duration = Field(
        default=10.0, description="First wait before a failed line or step is tried again"
    )
    max_attempts: int = Field(
        default=5, ge=1, description="How often one request is sent before it fails"
    )
    slice_requests: int = Field(
        default=500, ge=1, description="Answers that one deliver task takes at most"
    )
    results: dict[Name, SecretStr] = Field(
        default_factory=dict,
        description="Result backends by name, for result_backend= of a task or call, as JSON: "
        '{"archive": "db+postgresql://…", "eu": "redis://…"}',
    )
    destinations: dict[Name, Destination] = Field(
        default_factory=dict,
        description="Webhooks and Redis streams by name, for deliver_to= of a task or call, as "
        'JSON: {"crm": {"webhook": "https://…", "secret_env": "…"}, "feed": {"stream": "…"}}',
    )
    keep_results: Duration = Field(
        default=0.0,
        description="How long the ledger keeps results for `lowtide replay`; 0 for not at all",
    )
    keep_files: bool = Field(
        default=False, description="Keep the provider's files after a batch is delivered"
    )
    state_ttl: Duration = Field(
        default=14 * 86400.0, description="How long Redis remembers where a task is"
    )
    show_prompts: bool = Field(
        default=False, description="Show prompts and answers in logs, events and Flower"
    )
    web_token: SecretStr | None = Field(
        default=None, description="What to log in to the page with; without it, loopback only"
    )
    log_format: Literal["celery", "human", "json"] = Field(
        default="celery", description="How workers log: as Celery is set, for people, or as JSON"
    )

    @field_validator("tick", "lease", "poll_min", "state_ttl")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("must be more than zero")
        return value

    def thresholds(self, lane: Lane) -> Thresholds:
        """When `lane`'s buffer is sealed: account, model, lane key override in this order.

        What the account's provider allows binds in any case.
        """
        merged = {name: getattr(self, name) for name in Thresholds.model_fields}
        for name in (lane.account, lane.model, lane.whole.key):
            override = self.lanes.get(name)
            if override is not None:
                merged.update(override.model_dump(exclude={"spend_cap_day"}, exclude_none=True))
        profile = self.profile(lane.account)
        merged["max_requests"] = min(merged["max_requests"], profile.max_requests)
        merged["max_bytes"] = min(merged["max_bytes"], profile.max_bytes)
        return Thresholds.model_construct(**merged)

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """Account → the service that it is known to be at; `profile` fills it."""
        return {}

    def profile(self, account: str) -> Profile:
        """Which service an account is at; "compatible" when that cannot be told."""
        known = self.profiles.get(account)
        if known is None:
            try:
                chosen = account_of(account, self)
            except SettingsError:
                return COMPATIBLE
            url = chosen.base_url or environment("OPENAI_BASE_URL")
            known = PROFILES[chosen.profile] if chosen.profile else profile_at(url)
            self.profiles[account] = known
        return known

    def window(self, account: str) -> float:
        """Seconds that a provider has for a batch of the account."""
        chosen = self.accounts.get(account)
        return seconds(self.profile(account).window(chosen.window if chosen else None))

    def shortest_poll(self, account: str) -> float:
        """Least seconds between two looks at a batch of the account."""
        return max(self.poll_min, self.profile(account).poll_min)

    @property
    def ledger_url(self) -> str:
        """Where the ledger is: `database_url`, or SQLite in `home`."""
        return self.database_url or f"sqlite:///{(self.home / 'ledger.db').absolute()}"


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process.

    Args:
        overrides: Values that go before the environment, such as `app.conf.lowtide`.

    Raises:
        SettingsError: A name is unknown or a value cannot be used; one line names it.
    """
    given = dict(overrides or {})
    _refuse_unknown(given)
    try:
        return Settings(**given)
    except pydantic_settings.SettingsError as error:
        field = str(error).partition('field "')[2].partition('"')[0]
        raise SettingsError(f"Setting {PREFIX}{field.upper()} is not JSON.") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = str(first["msg"]).removeprefix("Value error, ")
        secret = name.endswith(_SECRET_ENDINGS) or name.startswith(_SECRET_PARTS)
        shown = "" if secret else f" = {first['input']!r}"
        raise SettingsError(f"Setting {PREFIX}{name.upper()}{shown}: {reason}.") from None


def sources(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting's value comes from: "app", "environment", ".env" or "default".

    Args:
        overrides: As for `load`.

    Returns:
        The setting's field, such as "max_wait" → its source.
    """
    in_file = dotenv_values(".env")

    def source(name: str) -> str:
        if name in overrides:
            return "app"
        variable = PREFIX + name.upper()
        if os.environ.get(variable):
            return "environment"
        return ".env" if in_file.get(variable) else "default"

    return {name: source(name) for name in Settings.model_fields}


def _refuse_unknown(overrides: Mapping[str, Any]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    seen = [name for name in (*os.environ, *dotenv_values(".env")) if name.startswith(PREFIX)]
    seen += [PREFIX + name.upper() for name in overrides]
    for name in seen:
        if name not in known | _OTHERS:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `lowtide settings` lists all."
            raise SettingsError(f"Unknown setting {name}{hint}")
