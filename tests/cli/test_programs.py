"""Commands that start something else or ask somebody else, and completion in the shell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from lowtide import webhooks
from tests.cli.conftest import Command
from tests.plugins.stack import ROOT
from tests.web.conftest import EndpointApi

URL = "https://tide.example.org/webhooks/openai"


@pytest.fixture
def endpoint_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndpointApi]:
    api = EndpointApi()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", api.url)
    yield api
    api.server.shutdown()
    api.server.server_close()


class TestWebhooks:
    def test_the_secret_is_printed_as_a_line_for_the_environment(
        self, deployment: str, endpoint_api: EndpointApi, lowtide: Command, monkeypatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

        ran = lowtide("webhooks", "register", URL)

        assert ran.code == 0, ran.err
        assert ran.out == "OPENAI_WEBHOOK_SECRET=whsec_new\n"
        assert URL in ran.err
        assert "the secret is not shown again" in ran.err
        assert endpoint_api.asked["event_types"] == list(webhooks.EVENTS)

    def test_as_json(
        self, deployment: str, endpoint_api: EndpointApi, lowtide: Command, monkeypatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

        ran = lowtide("webhooks", "register", URL, "--json")

        assert json.loads(ran.out) == {"id": "we_1", "url": URL, "secret": "whsec_new"}

    def test_the_secret_of_another_account_has_its_place_in_the_accounts(
        self, deployment: str, endpoint_api: EndpointApi, lowtide: Command, monkeypatch
    ) -> None:
        account = {"eu": {"api_key": "sk-eu", "base_url": endpoint_api.url}}
        monkeypatch.setenv("LOWTIDE_ACCOUNTS", json.dumps(account))

        ran = lowtide("webhooks", "register", URL, "--account", "eu")

        assert ran.out == "whsec_new\n"
        assert "LOWTIDE_ACCOUNTS" in ran.err

    def test_what_is_no_url_is_a_usage_error(self, deployment: str, lowtide: Command) -> None:
        ran = lowtide("webhooks", "register", "tide.example.org")
        assert ran.code == 2
        assert ran.err.startswith("lowtide: tide.example.org is no URL")


@pytest.mark.parametrize(("name", "program"), [("web", "worker.web"), ("demo", "worker.demo")])
def test_a_program_of_the_repository_is_looked_for_in_this_folder(
    lowtide: Command, monkeypatch: pytest.MonkeyPatch, name: str, program: str
) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path or ".") != ROOT])
    for known in [each for each in sys.modules if each.split(".")[0] == "worker"]:
        monkeypatch.delitem(sys.modules, known)

    ran = lowtide(name)

    assert ran.code == 1
    assert ran.err.startswith(f"lowtide: {program} is not in this folder")
    assert ran.err.count("\n") == 1


def test_web_serves_the_page_of_a_checkout(deployment: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lowtide.cli", "web", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        words = served.stdout.readline().split()
        try:
            with urlopen(f"{words[2]}/health", timeout=30) as answer:
                assert answer.status == 200
        finally:
            served.send_signal(signal.SIGTERM)
        assert words[:2] == ["READY", "lowtide-web"]


@pytest.mark.parametrize("token", [None, ""])
def test_web_is_not_open_to_others_without_a_token(
    deployment: str, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("LOWTIDE_WEB_TOKEN", token)
    command = [sys.executable, "-m", "lowtide.cli", "web", "--host", "0.0.0.0", "--port", "0"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "LOWTIDE_WEB_TOKEN" in ran.stderr


@pytest.mark.parametrize("name", ["web", "simulate"])
def test_a_port_that_is_taken_is_one_line(deployment: str, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "lowtide.cli", name, "--port", str(port)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr.endswith(
        f": 127.0.0.1:{port} cannot be listened on: Address already in use. Choose another --port.\n"
    )
    assert ran.stderr.count("\n") == 1


def test_demo_takes_the_demos_options(tmp_path: Path) -> None:
    env = {**os.environ, "LOWTIDE_HOME": str(tmp_path), "LOWTIDE_MAX_WIAT": "1s"}
    command = [sys.executable, "-m", "lowtide.cli", "demo", "--limit", "1"]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "did you mean LOWTIDE_MAX_WAIT?" in ran.stderr


class TestHelp:
    def test_tells_exit_codes_and_each_command_in_a_line(self, lowtide: Command) -> None:
        shown = lowtide("--help").out
        assert "Exit codes: 0 done, 1 something is wrong, 2" in shown
        assert "webhooks" in shown
        assert "Let the provider tell" in shown

    def test_bash_completes_commands(self, tmp_path: Path) -> None:
        bash = shutil.which("bash")
        if bash is None:
            pytest.skip("bash is not here")
        script = (
            'eval "$(lowtide --show-completion)"; COMP_WORDS=(lowtide web); COMP_CWORD=1\n'
            '_lowtide_completion lowtide; echo "${COMPREPLY[@]}"\n'
            "COMP_WORDS=(lowtide webhooks re); COMP_CWORD=2\n"
            '_lowtide_completion lowtide; echo "${COMPREPLY[@]}"'
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "HOME": str(tmp_path), "SHELL": bash}
        ran = subprocess.run(
            [bash, "-c", script], env=env, capture_output=True, text=True, timeout=60
        )
        assert sorted(ran.stdout.split()) == ["register", "web", "webhooks"], ran.stderr
