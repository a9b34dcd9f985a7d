"""The canvas matrix over RabbitMQ: each case with a batch task and with its plain twin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.canvas import conftest as canvas
from tests.canvas.cases import CASES, CORE
from tests.plugins.rabbitmq import RabbitServer
from tests.plugins.redis import started_redis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(
    rabbitmq_server: RabbitServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[canvas.World]:
    """A worker with the pool that the test asks for, on a RabbitMQ host of its own."""
    server = started_redis(tmp_path_factory.mktemp("redis"))
    broker = rabbitmq_server.vhost()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANVAS_REDIS", server.url)
        patch.setenv("TEST_BROKER", broker)
        from tests.brokers import canvas as on_rabbitmq
        from tests.canvas import canvas_app

        patch.setattr(canvas, "MODULE", "tests.brokers.canvas")
        patch.setattr(canvas_app, "make_app", on_rabbitmq.make_app)
        folder = tmp_path_factory.mktemp("canvas-rabbitmq")
        env = {"TEST_BROKER": broker}
        with canvas.made_world(server.url, folder, "pipeline", env) as made:
            made.worker("w1", request.param)
            yield made
    server.stop()


UNDER_A_SECOND = "countdown_in_a_chain"


def rows() -> Iterator[tuple[str, str]]:
    for pool in ("prefork", "threads", "gevent", "solo"):
        names = CASES if pool == "prefork" else CORE
        yield from ((pool, name) for name in names if name != UNDER_A_SECOND)


@pytest.mark.parametrize(("world", "name"), list(rows()), indirect=["world"], scope="module")
def test_as_a_plain_task(world: canvas.World, name: str) -> None:
    run = CASES[name]

    ordinary = run(canvas.Side(world, plain=True))
    ours = run(canvas.Side(world, plain=False))

    assert ours == ordinary, world.log("w1")


@pytest.mark.parametrize("world", ["prefork"], indirect=True)
@pytest.mark.parametrize("plain", [True, False])
def test_celery_refuses_countdowns_under_a_second(world: canvas.World, plain: bool) -> None:
    """Its own limit with quorum queues, for every task; `docs/how-to/rabbitmq.md` names it."""
    with pytest.raises(ValueError, match="countdown must be a positive number"):
        CASES[UNDER_A_SECOND](canvas.Side(world, plain=plain))
