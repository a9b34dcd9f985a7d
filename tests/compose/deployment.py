"""The compose stack as an operator handles it: one project of its own, on ports of its own.

It is set up as README says: passwords by `make secrets`, as files, and the rest in `.env`.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
PROFILES = ("rabbitmq", "simulator", "monitoring")


class Compose:
    """`docker compose` on the repository's own file.

    Args:
        project: Name of the project; nothing else of that name is touched.
        folder: For a copy of the file, its configuration, `.env` and passwords.
    """

    def __init__(self, project: str, folder: Path) -> None:
        self.project = project
        self.folder = folder
        parts = ("valkey", "web", "flower", "simulator", "rabbitmq")
        self.ports = {name: _free_port() for name in parts}
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "config", folder / "config")
        subprocess.run([folder / "config" / "make-secrets.sh"], check=True, capture_output=True)
        self.settings = {
            "OPENAI_API_KEY": "simulator",
            "OPENAI_BASE_URL": "http://simulator:8000/v1",
            "LOWTIDE_MAX_WAIT": "2s",
            "WORKER_PROCESSES": "2",
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
        }
        self.write_settings()
        self._command = [*program(), "--project-name", project]

    def write_settings(self, **more: str) -> None:
        """Writes `.env`, with these settings added."""
        self.settings |= more
        lines = [f"{name}={value}\n" for name, value in self.settings.items()]
        (self.folder / ".env").write_text("".join(lines))

    def secret(self, name: str) -> str:
        """A password, as `make secrets` made it."""
        return (self.folder / ".secrets" / "run" / name).read_text().strip()

    def write_secret(self, name: str, value: str) -> None:
        """Puts another password in its place."""
        (self.folder / ".secrets" / "run" / name).write_text(f"{value}\n")

    @property
    def redis_url(self) -> str:
        """Where an app outside sends its calls to."""
        return f"redis://:{self.secret('valkey_password')}@127.0.0.1:{self.ports['valkey']}/0"

    @property
    def rabbitmq_url(self) -> str:
        """The same, with RabbitMQ as broker."""
        password = self.secret("rabbitmq_password")
        return f"amqp://lowtide:{password}@127.0.0.1:{self.ports['rabbitmq']}//"

    def build(self) -> None:
        """Builds the image of this checkout."""
        _done([*self._command, "build", "worker"], ROOT)

    def run(self, *words: str, stdin: bytes | None = None) -> bytes:
        """Runs `docker compose` with these words and returns what it printed."""
        return _done([*self._command, *words], self.folder, stdin)

    def up(self, *words: str) -> None:
        """Starts what is not running, with the simulator in place of a provider."""
        self.run("--profile", "simulator", "up", "--detach", *words)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's containers that run."""
        flags = ["--filter", f"label=com.docker.compose.project={self.project}"]
        flags += ["--filter", f"label=com.docker.compose.service={service}"]
        return docker("ps", "--quiet", *flags).split()

    def healthy(self, service: str, count: int = 1) -> None:
        """Waits until `count` containers of the service say that they are well."""

        def well() -> bool:
            states = [docker("inspect", "--format", _HEALTH, c) for c in self.containers(service)]
            return [state.strip() for state in states] == ["healthy"] * count

        until(well, f"{count} {service} healthy", 600)

    def volume(self, service: str, *words: str, stdin: bytes = b"") -> bytes:
        """Runs `tar` on the service's volume, mounted at /data."""
        command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "tar"]
        command += ["--volume", f"{self.project}_{service}:/data", "valkey/valkey:9", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def ask(self, service: str, path: str) -> Any:
        """What a service of this stack answers with, JSON or text."""
        request = Request(f"http://127.0.0.1:{self.ports[service]}{path}")
        request.add_header("authorization", f"Bearer {self.secret('lowtide_web_token')}")
        with urlopen(request, timeout=120) as answer:
            body = answer.read()
        return json.loads(body) if body[:1] in b"{[" else body.decode()

    def remove(self) -> None:
        """Ends all of the project and deletes what it kept."""
        profiles = [word for name in PROFILES for word in ("--profile", name)]
        self.run(*profiles, "down", "--volumes", "--remove-orphans", "--timeout", "5")


_HEALTH = "{{.State.Health.Status}}"


def docker(*words: str) -> str:
    """Runs `docker` and returns what it printed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
    return done.stdout


def program() -> list[str]:
    """How compose is called here: the plugin, or the program of its own.

    Raises:
        FileNotFoundError: There is no engine that answers, or no compose.
    """
    if shutil.which("docker") is None or _fails("docker", "info"):
        raise FileNotFoundError("no container engine answers `docker info`")
    if not _fails("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is not None:
        return ["docker-compose"]
    raise FileNotFoundError("no `docker compose` and no docker-compose")


def until(condition: Callable[[], Any], what: str, timeout: float) -> Any:
    """Waits until `condition` gives something true, and returns that."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {timeout:.0f} s: {what}")


def _done(command: list[str], folder: Path, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()[-3000:]}"
    return done.stdout


def _fails(*command: str) -> bool:
    return bool(subprocess.run(command, capture_output=True).returncode)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
