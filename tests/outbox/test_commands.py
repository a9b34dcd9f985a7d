"""What the commands say of destinations, and what they do to what waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lowtide.clock import SystemClock
from lowtide.ledger import Ledger, NewMessage, Postponed
from lowtide.settings import load
from tests.cli.conftest import Command, deployment, lowtide

__all__ = ["deployment", "lowtide"]
pytestmark = pytest.mark.leaves_keys("*")


@pytest.fixture
def ledger(deployment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Three results wait: one for a destination that is set, two for one that is no longer."""
    crm = {"webhook": "https://crm.example/results", "secret_env": "CRM_SECRET"}
    monkeypatch.setenv("LOWTIDE_DESTINATIONS", json.dumps({"crm": crm, "feed": {"stream": "f"}}))
    monkeypatch.setenv("CRM_SECRET", "whsec_bG93dGlkZQ==")
    made = Ledger(load().ledger_url, SystemClock())
    made.create()
    made.post([NewMessage(name, f"{n}.0.0", b"x") for n, name in enumerate(("crm", "old", "old"))])
    yield made
    made.close()


def test_outbox_lists_who_is_owed_what(lowtide: Command, ledger: Ledger) -> None:
    ledger.take("crm", "s1", 9, 60)
    ledger.postpone_messages("crm", "s1", [Postponed("0.0.0", 1.0, "it answered 503")])

    ran = lowtide("outbox", "--json")

    found = {each["name"]: each for each in json.loads(ran.out)}
    assert {name: each["waiting"] for name, each in found.items()} == {
        "crm": 1,
        "feed": 0,
        "old": 2,
    }
    assert (found["crm"]["error"], found["crm"]["trouble"]) == ("it answered 503", None)
    assert "No destination is named 'old' in LOWTIDE_DESTINATIONS" in found["old"]["trouble"]
    shown = lowtide("outbox").out
    assert "it answered 503" in shown
    assert "--drop old" in shown


def test_what_nobody_wants_is_let_go_of(lowtide: Command, ledger: Ledger) -> None:
    ran = lowtide("outbox", "--drop", "old")

    assert (ran.code, ran.out) == (0, "2 results that waited for old are let go of.\n")
    assert [each.destination for each in ledger.backlogs()] == ["crm"]
    wrong = lowtide("outbox", "--drop", "old")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err == "lowtide: No destination is named 'old'; there are: crm, feed.\n"


def test_a_destination_is_paused_and_goes_on(lowtide: Command, ledger: Ledger) -> None:
    assert lowtide("pause", "to:crm", "--reason", "they move").code == 0
    found = {each["name"]: each for each in json.loads(lowtide("status", "--json").out)["outbox"]}
    assert "paused: they move" in found["crm"]["trouble"]
    assert lowtide("resume", "to:crm").code == 0
    found = {each["name"]: each for each in json.loads(lowtide("status", "--json").out)["outbox"]}
    assert found["crm"]["trouble"] is None
    assert "Destinations" in lowtide("status").out
    assert lowtide("pause", "to:nobody").code == 1
