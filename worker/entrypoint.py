"""What a container starts with: puts its secrets in place, then becomes the command.

A secret NAME is what the environment's NAME says, else what the file named by NAME_FILE holds,
else what /run/secrets/<name in small letters> holds. Addresses may name a secret in braces:
`LOWTIDE_REDIS_URL=redis://:{VALKEY_PASSWORD}@valkey:6379/0`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

FOLDER = Path("/run/secrets")
_ADDRESSES = (
    "LOWTIDE_REDIS_URL",
    "LOWTIDE_BROKER_URL",
    "LOWTIDE_RESULT_BACKEND",
    "LOWTIDE_DATABASE_URL",
)
SECRETS = (
    "OPENAI_API_KEY",
    "OPENAI_WEBHOOK_SECRET",
    "LOWTIDE_WEB_TOKEN",
    "LOWTIDE_ACCOUNTS",
    "FLOWER_BASIC_AUTH",
    "VALKEY_PASSWORD",
    "POSTGRES_PASSWORD",
    "RABBITMQ_PASSWORD",
    *_ADDRESSES,
)
_NAMED = re.compile(r"\{([A-Z_]+)\}")


class SecretError(Exception):
    """A secret that is named is nowhere; one line says which."""


def with_secrets(env: Mapping[str, str], folder: Path = FOLDER) -> dict[str, str]:
    """The environment with every secret in it and without empty names.

    An empty value counts as unset: compose gives one for what `.env` does not name.

    Raises:
        SecretError: A file cannot be read, or an address names a secret that is not there.
    """
    full = {name: value for name, value in env.items() if value or name not in _settable(env)}
    for name in SECRETS:
        path = full.pop(f"{name}_FILE", "") or str(folder / name.lower())
        if name not in full and (f"{name}_FILE" in env or os.access(path, os.R_OK)):
            value = _read(name, path)
            if value:
                full[name] = value
    for name in _ADDRESSES:
        if name in full:
            full[name] = _NAMED.sub(lambda found: _quoted(full, found[1]), full[name])
    return full


def main() -> None:
    """Becomes the command in this process's arguments."""
    try:
        env = with_secrets(os.environ)
    except SecretError as error:
        sys.exit(f"lowtide: {error}")
    os.execvpe(sys.argv[1], sys.argv[1:], env)  # noqa: S606 - the image's own command


def _settable(env: Mapping[str, str]) -> set[str]:
    ours = {name for name in env if name.startswith(("OPENAI_", "LOWTIDE_", "TASKS_"))}
    return ours | {*SECRETS} | {f"{name}_FILE" for name in SECRETS}


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretError(f"{name}: {path} cannot be read: {error.strerror}.") from None


def _quoted(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise SecretError(
            f"{name} is not set: `make secrets` makes a random one, or write it into .env."
        )
    return quote(env[name], safe="")


if __name__ == "__main__":
    main()
