"""A TCP proxy that cuts, refuses and delays: the network between a worker and a service."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any


class Proxy:
    """Listens on a free port, or on a Unix socket, and passes all on to `target`.

    Args:
        target: (host, port), or the path of a Unix socket.
        path: Listen on this Unix socket instead of a port.
    """

    def __init__(self, target: tuple[str, int] | Path, path: Path | None = None) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.cuts = 0
        self._path = path
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._start())

    def cut(self) -> None:
        """Resets every connection."""
        self.cuts += 1
        self._loop.call_soon_threadsafe(self._abort)

    def refuse(self, *, on: bool = True) -> None:
        """Resets every connection, and each new one until told otherwise."""
        self._refusing = on
        if on:
            self.cut()

    def stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        self._abort()
        await asyncio.sleep(0)

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            if isinstance(self.target, Path):
                far_reader, far = await asyncio.open_unix_connection(self.target)
            else:
                far_reader, far = await asyncio.open_connection(*self.target)
            self._writers.add(far)
            await asyncio.gather(self._pass(reader, far), self._pass(far_reader, writer))
        except OSError:
            pass
        finally:
            for each in (writer, far):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        # One side is done: what it said last still reaches the other.
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
