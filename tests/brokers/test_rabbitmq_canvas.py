"""The canvas matrix over RabbitMQ: each case with a batch task and with its plain twin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.canvas import conftest as canvas
from tests.canvas.cases import CASES, CORE
from tests.plugins.rabbitmq import RabbitServer
from tests.plugins.redis import started_redis

pytestmark = pytest.mark.slow
UNDER_A_SECOND = "countdown_in_a_chain"


class Worlds:
    """The world whose worker has the pool that was asked for last; another takes its place."""

    def __init__(self, rabbitmq: RabbitServer, folders: pytest.TempPathFactory) -> None:
        self._rabbitmq = rabbitmq
        self._folders = folders
        self._pool = ""
        self._open = ExitStack()
        self._world: canvas.World | None = None

    def of(self, pool: str) -> canvas.World:
        if self._world is None or pool != self._pool:
            self.close()
            self._pool = pool
            self._world = self._open.enter_context(self._made(pool))
        return self._world

    def close(self) -> None:
        self._world = None
        self._open.close()

    @contextmanager
    def _made(self, pool: str) -> Iterator[canvas.World]:
        folder = self._folders.mktemp(f"canvas-{pool}")
        server = started_redis(folder)
        broker = self._rabbitmq.vhost()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CANVAS_REDIS", server.url)
            patch.setenv("TEST_BROKER", broker)
            from tests.brokers import canvas as on_rabbitmq
            from tests.canvas import canvas_app

            patch.setattr(canvas, "MODULE", "tests.brokers.canvas")
            patch.setattr(canvas_app, "make_app", on_rabbitmq.make_app)
            # With gevent Celery may wait for ever for the confirmation of an event, with plain tasks
            # too; `docs/how-to/rabbitmq.md` names it.
            env = {"TEST_BROKER": broker, "TEST_EVENTS": "off" if pool == "gevent" else "on"}
            with canvas.made_world(server.url, folder, "pipeline", env) as made:
                made.worker("w1", pool)
                yield made
        server.stop()


@pytest.fixture(scope="module")
def worlds(
    rabbitmq_server: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worlds]:
    made = Worlds(rabbitmq_server, tmp_path_factory)
    yield made
    made.close()


def rows() -> Iterator[tuple[str, str]]:
    """Every case in prefork, the core of them in the other pools; pool after pool."""
    for pool in ("prefork", "threads", "gevent", "solo"):
        for name in CASES:
            if name != UNDER_A_SECOND and (pool == "prefork" or name in CORE):
                yield pool, name


@pytest.mark.parametrize(("pool", "name"), list(rows()))
def test_as_a_plain_task(worlds: Worlds, pool: str, name: str) -> None:
    world = worlds.of(pool)
    run = CASES[name]

    ordinary = run(canvas.Side(world, plain=True))
    ours = run(canvas.Side(world, plain=False))

    assert ours == ordinary, world.log("w1")


@pytest.mark.parametrize("plain", [True, False])
def test_celery_refuses_countdowns_under_a_second(worlds: Worlds, plain: bool) -> None:
    """Its own limit with quorum queues, for every task; `docs/how-to/rabbitmq.md` names it."""
    with pytest.raises(ValueError, match="countdown must be a positive number"):
        CASES[UNDER_A_SECOND](canvas.Side(worlds.of("solo"), plain=plain))
