"""Running the simulator with uvicorn: in a thread of this process, or as the process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import uvicorn

from lowtide.simulator.app import create_app
from lowtide.simulator.connections import CuttableProtocol
from lowtide.simulator.settings import SimulatorSettings
from lowtide.simulator.steering import Steering
from lowtide.simulator.world import World

_TICK = 0.1  # seconds, as uvicorn's own loop


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off: 40 ms less an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"{host}:{port} cannot be listened on: {error.strerror}. Choose another --port."
        ) from error
    listener.listen(2048)
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _config(app: object, log_level: str) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=CuttableProtocol,
        log_level=log_level,
        log_config=None,  # the application, a test for instance, says where logs go
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )


class SimulatorServer(Steering):
    """A simulator on a port of its own, served from a thread.

    A context manager, with all the methods of ``Steering``::

        with SimulatorServer() as server:
            client = OpenAI(base_url=server.base_url, api_key="any")

    Args:
        settings: what the simulator is told.
        host: address to listen on.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._socket = _listen(host, port)
        self._app = create_app(settings)
        self._up = threading.Event()
        self._server = _Announcing(_config(self._app, "warning"), self._up.set)
        self._thread = threading.Thread(
            target=self._serve, name="lowtide-simulator-http", daemon=True
        )
        self.port: int = self._socket.getsockname()[1]
        super().__init__(f"http://{_shown(host)}:{self.port}")

    @property
    def world(self) -> World:
        """The simulator's inside: clock, store, engine."""
        world: World = self._app.state.world
        return world

    def start(self) -> Self:
        """Serve, and return when requests are answered.

        Raises:
            RuntimeError: when it does not come up.
        """
        self._thread.start()
        if not self._up.wait(30) or not self._server.started:
            raise RuntimeError("the simulator did not start")
        return self

    def stop(self) -> None:
        """End server, engine and threads."""
        self._server.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


class _Announcing(uvicorn.Server):
    """Calls back when requests are answered, and stops at once when asked from another thread."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._ready()

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864_000
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _TICK)

    def ask_to_stop(self) -> None:
        """Stop serving; from any thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked.set)


def serve(
    settings: SimulatorSettings, host: str, port: int, announce: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: what the simulator is told.
        host: address to listen on.
        port: 0 takes a free one.
        announce: called with the base URL when requests are answered.
    """
    listener = _listen(host, port)
    base_url = f"http://{_shown(host)}:{listener.getsockname()[1]}/v1"
    server = _Announcing(_config(create_app(settings), "warning"), lambda: announce(base_url))
    server.run(sockets=[listener])
