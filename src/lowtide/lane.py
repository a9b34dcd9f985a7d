"""A lane: what may share one batch file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """What may share a batch file: one provider account, one endpoint, one model.

    Attributes:
        account: Name of the provider account in the settings, usually "default".
        endpoint: Path of the API, such as "/v1/chat/completions".
        model: Model name as the request gives it.
    """

    account: str
    endpoint: str
    model: str

    @property
    def key(self) -> str:
        """The lane as one string without braces or blanks, such as
        "default:/v1/chat/completions:gpt-5-mini".
        """
        return _key(self.account, self.endpoint, self.model)

    @classmethod
    def parse(cls, key: str) -> Lane:
        """The lane that `key` was made from.

        Raises:
            ValueError: `key` has not three parts.
        """
        account, endpoint, model = key.split(":")
        return cls(unquote(account), unquote(endpoint), unquote(model))


@lru_cache(maxsize=1024)
def _key(account: str, endpoint: str, model: str) -> str:
    return f"{quote(account)}:{quote(endpoint)}:{quote(model)}"
