"""`python -m worker.web`: serves the page, on loopback unless a token is set."""

from __future__ import annotations

import argparse
import socket
import sys

import uvicorn

from lowtide import logs
from lowtide.errors import LowtideError, SettingsError
from lowtide.runtime import of
from worker.web.app import make_app
from worker.web.guard import is_loopback, token

_BACKLOG = 2048


def main(argv: list[str] | None = None) -> int:
    """Serves until it is told to stop.

    Returns:
        0 after a clean end, 2 when it cannot be served like this.
    """
    options = _parser().parse_args(argv)
    try:
        serve(options.host, options.port)
    except (LowtideError, OSError) as error:
        print(f"lowtide: {error}", file=sys.stderr)  # noqa: T201 - a command's own output
        return 2
    return 0


def serve(host: str, port: int) -> None:
    """Serves the page of the deployment that the settings name.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.

    Raises:
        SettingsError: `host` can be reached from outside and no token is set, or the port is
            taken.
    """
    from worker.app import app as celery_app

    rt = of(celery_app)
    if not token(rt) and not is_loopback(host):
        raise SettingsError(
            f"The page on {host} can be reached by others: set LOWTIDE_WEB_TOKEN to what they "
            "have to log in with, or listen on 127.0.0.1."
        )
    logs.configure(rt.settings.log_format)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"{host}:{port} cannot be listened on: {error.strerror}. Choose another --port."
            ) from error
        listening.listen(_BACKLOG)  # who comes before all is set up waits, and is not refused
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            make_app(rt), log_config=None, access_log=False, timeout_graceful_shutdown=3
        )
        print(f"READY lowtide-web {url}", flush=True)  # noqa: T201 - what starts it waits for it
        uvicorn.Server(config).run(sockets=[listening])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m worker.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
