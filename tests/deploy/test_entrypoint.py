"""How secrets get into a container: by environment or by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.entrypoint import SecretError, with_secrets


def test_the_environment_goes_before_a_named_file_before_the_folder(tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.write_text("from the named file\n")
    for name in ("openai_api_key", "valkey_password", "lowtide_web_token"):
        (tmp_path / name).write_text("from the folder\n")
    env = {
        "OPENAI_API_KEY": "from the environment",
        "VALKEY_PASSWORD": "",
        "VALKEY_PASSWORD_FILE": str(named),
        "LOWTIDE_WEB_TOKEN": "",
        "LOWTIDE_WEB_TOKEN_FILE": "",
    }

    full = with_secrets(env, tmp_path)

    assert full == {
        "OPENAI_API_KEY": "from the environment",
        "VALKEY_PASSWORD": "from the named file",
        "LOWTIDE_WEB_TOKEN": "from the folder",
    }


def test_addresses_name_their_secrets_and_empty_settings_are_unset(tmp_path: Path) -> None:
    env = {
        "VALKEY_PASSWORD": "p@ss/word",
        "LOWTIDE_REDIS_URL": "redis://:{VALKEY_PASSWORD}@valkey:6379/0",
        "LOWTIDE_BROKER_URL": "",
        "LOWTIDE_MAX_WAIT": "",
        "EMPTY": "",
    }

    full = with_secrets(env, tmp_path)

    assert full == {
        "VALKEY_PASSWORD": "p@ss/word",
        "LOWTIDE_REDIS_URL": "redis://:p%40ss%2Fword@valkey:6379/0",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"LOWTIDE_DATABASE_URL": "postgresql://x:{POSTGRES_PASSWORD}@y/z"}, "POSTGRES_PASSWORD"),
        ({"OPENAI_API_KEY_FILE": "/nowhere/key"}, "OPENAI_API_KEY: /nowhere/key"),
    ],
)
def test_a_secret_that_is_nowhere_is_named(env: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=named) as caught:
        with_secrets(env, tmp_path)
    assert "\n" not in str(caught.value)
