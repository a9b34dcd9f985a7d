"""A lane: what may share one batch file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote, unquote


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """What may share a batch file: one provider account, one endpoint, one model.

    Attributes:
        account: Name of the provider account in the settings, usually "default".
        endpoint: Path of the API, such as "/v1/chat/completions".
        model: Model name as the request gives it.
        share: Whose requests they are, a tenant or a task, where each of them has lanes of its
            own; "" where all share one. The provider knows nothing of it.
    """

    account: str
    endpoint: str
    model: str
    share: str = ""

    @property
    def key(self) -> str:
        """The lane as one string without braces or blanks, such as
        "default:/v1/chat/completions:gpt-5-mini", with ":acme" for a share.
        """
        return _key(self.account, self.endpoint, self.model, self.share)

    @property
    def whole(self) -> Lane:
        """The lane of all shares together: what settings and pauses are about."""
        return replace(self, share="") if self.share else self

    @property
    def subjects(self) -> tuple[str, str, str]:
        """What a pause of it may name, the nearest first: itself, the lane of all shares
        together, its account.
        """
        return self.key, self.whole.key, self.account

    @classmethod
    def parse(cls, key: str) -> Lane:
        """The lane that `key` was made from.

        Raises:
            ValueError: `key` has not three or four parts.
        """
        account, endpoint, model, *share = key.split(":", 3)
        return cls(unquote(account), unquote(endpoint), unquote(model), unquote("".join(share)))


@lru_cache(maxsize=1024)
def _key(account: str, endpoint: str, model: str, share: str) -> str:
    end = f":{quote(share)}" if share else ""
    return f"{quote(account)}:{quote(endpoint)}:{quote(model)}{end}"
