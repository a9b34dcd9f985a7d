"""Everything that lowtide needs on one machine: Valkey, a provider, workers and Flower."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from lowtide.embedded import EmbeddedRedis
from worker.process import Program, free_port
from worker.supervisor import Supervisor

_ROOT = Path(__file__).resolve().parent.parent
_FLOWER_PORT = 5555
_PAGE_PORT = 8080
_VALKEY_PORT = 6379
_POOL_PROCESSES = 2
_SIMULATED_KEY = "sk-simulated"  # also of a shell that was told of `make up`
# Apart from what an app of one's own has in database 0: its calls are not for these workers.
_DATABASE = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        home: Folder for all that is kept: Valkey's file, the ledger, the simulator's batches.
        env: The outer environment, `.env` included.
        workers: Worker processes, each with a pool of its own.
        page: Whether the page runs too.
        usual_ports: Take Redis' usual port when it is free, so that other programs find it.
        turnaround: Seconds that the simulator takes for a batch.
        redis_url: A Redis to use in place of the embedded Valkey.
    """

    home: Path
    env: Mapping[str, str]
    workers: int = 2
    page: bool = False
    usual_ports: bool = False
    turnaround: float = 10.0
    redis_url: str | None = None

    @property
    def simulated(self) -> bool:
        """Whether the simulator stands in for a provider, as no key is there."""
        key = self.env.get("OPENAI_API_KEY")
        return key in (None, "", _SIMULATED_KEY) and not self.env.get("LOWTIDE_ACCOUNTS")


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is up.

    Attributes:
        env: Environment in which another process is part of the deployment.
        addresses: Those of its names that say where things are.
        provider: URL of the provider's API.
        flower: URL of Flower with its password.
        page: URL of the page, None when it does not run.
    """

    env: Mapping[str, str]
    addresses: frozenset[str]
    redis_url: str
    provider: str
    flower: str
    page: str | None


def outer_environment() -> dict[str, str]:
    """This process's environment; what it lacks comes from `.env`."""
    given = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**given, **os.environ}


@contextlib.contextmanager
def stack(plan: Plan, supervisor: Supervisor, say: Callable[[str], None]) -> Iterator[Running]:
    """Starts what `plan` names; ends all of it on leaving, the store last.

    Args:
        say: Gets one line per step.

    Raises:
        LowtideError: Something did not start.
        Stopped: The end was asked for meanwhile.
    """
    plan.home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as cleanup:
        redis_url = plan.redis_url
        if redis_url is None:
            say("starting Valkey")
            redis_url = cleanup.enter_context(_valkey(plan))
        cleanup.callback(supervisor.stop)
        addresses = _addresses(plan, redis_url)
        if plan.simulated:
            say("starting the simulator: no OPENAI_API_KEY is set, so no money is spent")
            port = free_port()
            addresses |= _simulated_provider(port)
            supervisor.start([_simulator(plan, port)])
        env = {**plan.env, **addresses, "PYTHONUNBUFFERED": "1"}
        say(f"starting {plan.workers} workers")
        supervisor.start([_worker(number, env) for number in range(1, plan.workers + 1)])
        say("starting Flower and the page" if plan.page else "starting Flower")
        port, page_port, login = free_port(_FLOWER_PORT), free_port(_PAGE_PORT), _login(plan)
        page = [_page(env, page_port)] if plan.page else []
        supervisor.start([_flower({**env, "FLOWER_BASIC_AUTH": login}, port), *page])
        yield Running(
            env=env,
            addresses=frozenset(addresses),
            redis_url=redis_url,
            provider=env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
            flower=f"http://{login}@127.0.0.1:{port}",
            page=f"http://127.0.0.1:{page_port}" if plan.page else None,
        )


@contextlib.contextmanager
def _valkey(plan: Plan) -> Iterator[str]:
    """The embedded server's URL, for as long as it runs."""
    server = EmbeddedRedis()
    port = free_port(_VALKEY_PORT) if plan.usual_ports else 0
    try:
        url = server.start(plan.home / "valkey", port)
        yield f"{url.rpartition('/')[0]}/{_DATABASE}"
    finally:
        server.stop()


def _addresses(plan: Plan, redis_url: str) -> dict[str, str]:
    """Where each part of the deployment finds the others; what the user set stays."""
    return {
        "LOWTIDE_HOME": str(plan.home.absolute()),
        "LOWTIDE_DATABASE_URL": plan.env.get("LOWTIDE_DATABASE_URL")
        or f"sqlite:///{plan.home.absolute() / 'ledger.db'}",
        "LOWTIDE_REDIS_URL": redis_url,
        "LOWTIDE_BROKER_URL": plan.env.get("LOWTIDE_BROKER_URL") or redis_url,
        "LOWTIDE_RESULT_BACKEND": plan.env.get("LOWTIDE_RESULT_BACKEND") or redis_url,
    }


def _simulated_provider(port: int) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": _SIMULATED_KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
    }


def _simulator(plan: Plan, port: int) -> Program:
    options = ["--port", str(port), "--state", str(plan.home / "simulator")]
    command = [
        sys.executable,
        "-m",
        "lowtide.cli",
        "simulate",
        *options,
        "--delay",
        f"{plan.turnaround}s",
    ]
    return Program("simulator", command, dict(plan.env), ready_line="READY lowtide-simulator")


def _worker(number: int, env: Mapping[str, str]) -> Program:
    name = f"worker-{number}"
    options = ["--hostname", f"{name}@%h", "--concurrency", str(_POOL_PROCESSES)]
    return Program(
        name,
        [*_celery(), "worker", *options, "--loglevel", "INFO", "--without-mingle"],
        dict(env),
        ready_line=" ready.",
    )


def _flower(env: Mapping[str, str], port: int) -> Program:
    options = ["--address=127.0.0.1", f"--port={port}"]
    conf = f"--conf={_ROOT / 'config' / 'flower.py'}"
    return Program("flower", [*_celery(), "flower", conf, *options], dict(env), ready_port=port)


def _page(env: Mapping[str, str], port: int) -> Program:
    command = [sys.executable, "-m", "worker.web", "--port", str(port)]
    return Program("page", command, dict(env), ready_line="READY lowtide-web")


def _celery() -> list[str]:
    return [sys.executable, "-m", "celery", "--workdir", str(_ROOT), "-A", "worker.app", "--quiet"]


def _login(plan: Plan) -> str:
    """User and password of Flower, made once where none is set: it can revoke tasks."""
    given = plan.env.get("FLOWER_BASIC_AUTH")
    if given:
        return given
    kept = plan.home / "flower-login"
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(f"lowtide:{secrets.token_urlsafe(9)}", encoding="utf-8")
    return kept.read_text(encoding="utf-8").strip()
