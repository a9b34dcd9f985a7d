"""The command `lowtide`.

Exit codes: 0 done, 1 something is wrong (one line on standard error says what), 2 the command
line or a setting cannot be used, 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; what goes wrong is one clear line."""
    from kombu.exceptions import OperationalError
    from redis import RedisError

    from lowtide.cli.root import app
    from lowtide.errors import LowtideError, SettingsError

    try:
        app()
    except LowtideError as error:
        _fail(error.message, 2 if isinstance(error, SettingsError) else 1)
    except RedisError as error:
        _fail(f"Redis: {error} (`lowtide doctor` looks closer)", 1)
    except OperationalError as error:
        _fail(f"The broker cannot be used: {error} (`lowtide doctor` looks closer)", 1)


def _fail(line: str, code: int) -> None:
    print(f"lowtide: {line}", file=sys.stderr)  # noqa: T201 - a command's own output
    sys.exit(code)
