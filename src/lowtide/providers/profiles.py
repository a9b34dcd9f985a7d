"""How services of OpenAI's shape differ from each other, as data.

The facts are from each service's documentation; what a service does not document is as OpenAI
has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from lowtide.calls import CHAT, EMBEDDINGS, PROMPT_FIELD, RESPONSES
from lowtide.errors import EndpointNotBatchable, SettingsError

_DAY = 86_400
_MB = 1_000_000
_EVERY_ENDPOINT = frozenset(PROMPT_FIELD)
_UNITS = {"h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Profile:
    """What is particular to one service.

    Attributes:
        name: As settings give it.
        hosts: Endings of host names at which the service is found.
        prices: The service's id in genai-prices; None when it is not there.
        batch_share: Endpoint → what a batch costs of the standard price, where the service
            documents it; for models whose batch price genai-prices does not have.
        purpose: What uploaded files are for.
        upload_path: Where files are uploaded.
        upload_fields: Fields that the upload has beside the file and the purpose; "{name}" stands
            for the file's name.
        file_expiry: Seconds after which the service is asked to delete an input file; None leaves
            it to the service.
        windows: Completion windows that it offers, its usual one first.
        endpoints: Endpoints that have a batch form.
        max_requests: Most requests of one batch.
        max_bytes: Most bytes of one batch file.
        max_inputs: Most inputs of one embeddings request.
        max_batch_inputs: Most inputs of all embeddings requests in a batch.
        keeps_metadata: Whether a batch carries the metadata it was created with. Where it does
            not, a batch in doubt is known by its input file.
        created_under: Name of the field that holds the batch in the answer to its creation; None
            when the answer is the batch itself.
        poll_min: Least seconds between two looks at the same batch.
    """

    name: str
    hosts: tuple[str, ...] = ()
    prices: str | None = None
    batch_share: Mapping[str, float] = field(default_factory=dict)
    purpose: str = "batch"
    upload_path: str = "/files"
    upload_fields: Mapping[str, str] = field(default_factory=dict)
    file_expiry: int | None = None
    windows: tuple[str, ...] = ("24h",)
    endpoints: frozenset[str] = _EVERY_ENDPOINT
    max_requests: int = 50_000
    # 200 MB may mean a little more; nobody means less.
    max_bytes: int = 200 * _MB
    max_inputs: int = 2_048
    max_batch_inputs: int = 50_000
    keeps_metadata: bool = True
    created_under: str | None = None
    poll_min: float = 0.0

    def window(self, wanted: str | None) -> str:
        """The completion window to ask for: `wanted`, or the usual one.

        Raises:
            SettingsError: The service does not offer it.
        """
        if wanted is None or wanted in self.windows:
            return wanted or self.windows[0]
        raise SettingsError(
            f"Profile {self.name} has no completion window {wanted!r}; it has "
            f"{', '.join(self.windows)}."
        )

    def check(self, endpoint: str) -> None:
        """Refuses an endpoint that has no batch form at this service.

        Raises:
            EndpointNotBatchable: It has none.
        """
        if endpoint not in self.endpoints:
            raise EndpointNotBatchable(
                f"Endpoint {endpoint} has no batch form at {self.name}; it has "
                f"{', '.join(sorted(self.endpoints))}.",
                {"param": "endpoint"},
            )


def seconds(window: str) -> float:
    """A completion window such as "24h" or "7d" in seconds."""
    return float(window[:-1]) * _UNITS[window[-1]]


OPENAI = Profile(
    "openai",
    hosts=("api.openai.com",),
    prices="openai",
    # Every model at half price; genai-prices has no batch price for embeddings.
    batch_share={EMBEDDINGS: 0.5},
)
AZURE = Profile(
    "azure",
    hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
    prices="azure",
    batch_share={CHAT: 0.5, RESPONSES: 0.5, EMBEDDINGS: 0.5},
    # 500 input files without an expiry, 10,000 with one of at least 14 days.
    file_expiry=14 * _DAY,
    endpoints=frozenset({CHAT, RESPONSES, EMBEDDINGS}),
    max_requests=100_000,
    poll_min=60.0,
)
GROQ = Profile(
    "groq",
    hosts=("api.groq.com",),
    prices="groq",
    windows=("24h", "2d", "3d", "4d", "5d", "6d", "7d"),
    endpoints=frozenset({CHAT}),
    max_bytes=100 * _MB,
)
TOGETHER = Profile(
    "together",
    hosts=("api.together.xyz", "api.together.ai"),
    prices="together",
    purpose="batch-api",
    upload_path="/files/upload",
    upload_fields={"file_name": "{name}", "file_type": "jsonl"},
    endpoints=frozenset({CHAT, "/v1/completions"}),
    max_bytes=100 * _MB,
    keeps_metadata=False,
    created_under="job",
    poll_min=30.0,
)
DOUBLEWORD = Profile(
    "doubleword",
    hosts=("api.doubleword.ai",),
    prices="doubleword",
    windows=("24h", "1h"),
    endpoints=frozenset({CHAT, RESPONSES, EMBEDDINGS, "/v1/completions"}),
)
COMPATIBLE = Profile(
    "compatible",
    # A gateway bills OpenAI's models as OpenAI does; other names have no price there.
    prices="openai",
    batch_share=OPENAI.batch_share,
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (OPENAI, AZURE, GROQ, TOGETHER, DOUBLEWORD, COMPATIBLE)
}


@lru_cache(maxsize=256)
def profile_at(base_url: str | None) -> Profile:
    """The profile of the service at `base_url`; OpenAI's own address when None."""
    if not base_url:
        return OPENAI
    host = urlsplit(base_url).hostname or ""
    known = (profile for profile in PROFILES.values() if host.endswith(profile.hosts))
    return next(known, COMPATIBLE)
