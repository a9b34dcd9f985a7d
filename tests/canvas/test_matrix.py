"""Every canvas gives with a batch task what it gives with an ordinary one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.canvas.cases import CASES, CORE
from tests.canvas.conftest import Side, World, made_world

DATABASES = {"prefork": 1, "threads": 2, "solo": 3, "gevent": 4}


class Worlds:
    """The world that is running; another one takes its place when it is asked for."""

    def __init__(self, url: str, folders: pytest.TempPathFactory) -> None:
        self._url = url
        self._folders = folders
        self._key: tuple[str, str] | None = None
        self._open = ExitStack()
        self._world: World | None = None

    def of(self, driver: str, pool: str) -> World:
        if self._world is None or self._key != (driver, pool):
            self.close()
            database = DATABASES[pool] + (4 if driver == "pipeline" else 0)
            url = self._url.removesuffix("/0") + f"/{database}"
            folder = self._folders.mktemp(f"{driver}-{pool}")
            self._world = self._open.enter_context(made_world(url, folder, driver))
            self._key = driver, pool
            self._world.worker("w1", pool)
        return self._world

    def close(self) -> None:
        self._world = None
        self._open.close()


@pytest.fixture(scope="module")
def worlds(canvas_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    made = Worlds(canvas_server, tmp_path_factory)
    yield made
    made.close()


def _rows() -> Iterator[Any]:
    for pool in DATABASES:
        for name in CASES:
            if pool == "prefork" or name in CORE:
                yield pytest.param("fake", pool, name, id=f"{pool}-{name}")
    for name in CASES:
        yield pytest.param(
            "pipeline", "prefork", name, id=f"pipeline-{name}", marks=pytest.mark.slow
        )


@pytest.mark.parametrize(("driver", "pool", "name"), list(_rows()))
def test_as_a_plain_task(worlds: Worlds, driver: str, pool: str, name: str) -> None:
    world = worlds.of(driver, pool)
    run = CASES[name]

    ordinary = run(Side(world, plain=True))
    ours = run(Side(world, plain=False))

    assert ours == ordinary, world.log("w1")
