"""Settings: read from the environment, and one clear line for what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lowtide import settings
from lowtide.durations import parse_duration, parse_size, write_duration
from lowtide.errors import SettingsError
from lowtide.lane import Lane

ROOT = Path(__file__).parents[2]
LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without a `.env`."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("30s", 30),
        ("6h", 21_600),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        ("7d", 604_800),
        (12, 12),
        ("1.5", 1.5),
    ],
)
def test_durations(given, seconds):
    assert parse_duration(given) == seconds


@pytest.mark.parametrize(
    "written", ["0s", "250ms", "8s", "1.5s", "1m", "1m30s", "6h", "1h30m", "14d", "1d1s"]
)
def test_a_duration_is_written_as_it_is_read(written):
    assert write_duration(parse_duration(written)) == written


@pytest.mark.parametrize("given", ["soon", "-1s", "1x", "", "6hh", float("inf"), True])
def test_what_is_no_duration(given):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(given)


@pytest.mark.parametrize(
    ("given", "count"), [("50k", 50_000), ("100MB", 100_000_000), (7, 7), ("1.5k", 1_500)]
)
def test_sizes(given, count):
    assert parse_size(given) == count


def test_the_environment_and_the_apps_own_settings(monkeypatch):
    monkeypatch.setenv("LOWTIDE_MAX_WAIT", "5m")
    monkeypatch.setenv("LOWTIDE_MAX_REQUESTS", "2k")

    read = settings.load({"max_requests": 10})

    assert (read.max_wait, read.max_requests) == (300.0, 10)


def test_a_dot_env_file(tmp_path):
    (tmp_path / ".env").write_text("LOWTIDE_TICK=250ms\nOTHER=1\n")

    assert settings.load().tick == 0.25


def test_the_defaults_that_are_promised():
    read = settings.load()

    assert (read.max_requests, read.max_bytes, read.max_wait) == (50_000, 100_000_000, 60.0)


def test_thresholds_of_account_model_and_lane_go_before_the_general_ones():
    read = settings.load(
        {
            "max_wait": "1m",
            "lanes": {
                "default": {"max_wait": "2m", "max_requests": 5},
                "gpt-5-mini": {"max_wait": "3m"},
                LANE.key: {"max_bytes": "1MB"},
            },
        }
    )

    found = read.thresholds(LANE)

    assert (found.max_wait, found.max_requests, found.max_bytes) == (180.0, 5, 1_000_000)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "LOWTIDE_MAX_WAIT",
            "soon",
            "LOWTIDE_MAX_WAIT = 'soon': 'soon' is not a duration; write 30s, 6h or seconds.",
        ),
        ("LOWTIDE_MAX_REQUESTS", "0", "greater than or equal to 1"),
        ("LOWTIDE_TICK", "0", "must be more than zero"),
        (
            "LOWTIDE_MAX_WIAT",
            "1",
            "Unknown setting LOWTIDE_MAX_WIAT; did you mean LOWTIDE_MAX_WAIT?",
        ),
        ("LOWTIDE_BANANA_SPLIT", "1", "Unknown setting LOWTIDE_BANANA_SPLIT"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_of_the_app_is_refused_too():
    with pytest.raises(SettingsError, match="did you mean LOWTIDE_POLL_MIN"):
        settings.load({"poll_mni": 3})


@pytest.mark.parametrize("name", ["LANES", "ACCOUNTS", "PRICES"])
def test_what_is_no_json_is_told_in_one_line(monkeypatch, name):
    monkeypatch.setenv(f"LOWTIDE_{name}", "{bad")

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert str(caught.value) == f"Setting LOWTIDE_{name} is not JSON."


def test_an_empty_value_counts_as_unset(monkeypatch):
    monkeypatch.setenv("LOWTIDE_MAX_REQUESTS", "")
    monkeypatch.setenv("LOWTIDE_LANES", "")

    assert settings.load().max_requests == 50_000
    assert settings.sources({})["max_requests"] == "default"


def test_a_wrong_value_that_may_be_a_secret_is_not_repeated(monkeypatch):
    monkeypatch.setenv("LOWTIDE_ACCOUNTS", '{"eu": {"api_key": ["sk-hidden"]}}')

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert "sk-hidden" not in str(caught.value)


def test_docker_compose_hands_every_setting_on():
    """But for those that are the stack's own."""
    passed = set(re.findall(r"\$\{(LOWTIDE_[A-Z_]+):-", (ROOT / "docker-compose.yml").read_text()))
    every = {settings.PREFIX + name.upper() for name in settings.Settings.model_fields}

    assert every - passed == {"LOWTIDE_HOME", "LOWTIDE_REDIS_URL", "LOWTIDE_DATABASE_URL"}
    assert passed <= every


def test_names_of_docker_compose_in_the_same_file_are_left_alone(tmp_path):
    names = re.findall(r"\$\{([A-Z_]+):", (ROOT / "docker-compose.yml").read_text())
    own = {name for name in names if not name.startswith(("LOWTIDE_", "OPENAI_"))}
    assert {"WEB_PORT", "WORKER_PROCESSES", "VALKEY_PASSWORD"} <= own
    (tmp_path / ".env").write_text("".join(f"{name}=7\n" for name in own))

    assert settings.load().max_requests == 50_000
