"""The kinds of calls of the main job, for each broker, pool and ledger that is to have them all."""

from __future__ import annotations

import openai
import pytest
from celery import chain, chord, group

from lowtide.errors import RequestRejected
from lowtide.simulator.steering import Steering
from tests.plugins.stack import Stack, until


def every_kind_ends_as_it_should(stack: Stack, shop) -> None:
    """Sends a call of each kind at once and looks at what each gives."""
    plain = shop.summarize.delay("The tide is low.")
    ticket = shop.triage.delay("Subject: flood. Help.")
    steps = shop.review.delay("The boat is red.")
    both = shop.vectors.delay(["sea", "land"])
    other = shop.respond.delay("The port is open.")
    wrong = shop.bad.delay("The buoy is green.")
    bulk = shop.summarize.delay_many([f"Gull {n} flies." for n in range(20)])
    urgent = shop.summarize.apply_async(("The siren is loud.",), priority=9)
    tail = chain(shop.summarize.s("The pier is long."), shop.summarize.s(5), shop.noop.s())()
    many = chord(group(shop.summarize.s(f"Wave {n} rolls.") for n in range(5)), shop.join.s())()

    assert plain.get(timeout=60) == "The tide is low."
    assert set(ticket.get(timeout=60)) == {"subject", "urgent"}
    assert steps.get(timeout=60)[0] == "The boat is red."
    assert [len(vector) for vector in both.get(timeout=60)] == [1536, 1536]
    assert other.get(timeout=60) == "The port is open."
    with pytest.raises(RequestRejected) as caught:
        wrong.get(timeout=60)
    assert caught.value.details["status"] == 400
    assert caught.value.details["task"] == "shop.bad"
    assert bulk.get(timeout=60) == [f"Gull {n} flies." for n in range(20)]
    assert urgent.get(timeout=60) == "The siren is loud."
    assert tail.get(timeout=60) == "The pier is long."
    assert many.get(timeout=60) == " | ".join(f"Wave {n} rolls." for n in range(5))
    # What is done leaves nothing behind: no file at the provider.
    until(lambda: _files(stack) == [], "the provider's files are deleted")


def what_fails_for_now_is_sent_again(stack: Stack, shop) -> None:
    """Lines that the provider fails in passing come back with the next batch."""
    simulator = Steering(stack.simulator.root)
    simulator.add_fault("line_error", status=500, count=3)
    calls = [shop.summarize.delay(f"Rope {n} is wet.") for n in range(10)]

    assert [call.get(timeout=90) for call in calls] == [f"Rope {n} is wet." for n in range(10)]
    simulator.clear_faults()


def a_revoked_call_ends_while_it_waits(stack: Stack, shop) -> None:
    """A revoke reaches a call at the provider, and the others go on."""
    simulator = Steering(stack.simulator.root)
    simulator.turnaround(working="1h")
    gone, stays = shop.summarize.delay("The fog is thick."), shop.summarize.delay("The sun is up.")
    until(lambda: {gone.state, stays.state} == {"SUBMITTED"}, "both are at the provider")

    gone.revoke()

    until(lambda: gone.state == "REVOKED", "it is revoked")
    simulator.turnaround(working=0)
    simulator.advance("2h")
    assert stays.get(timeout=60) == "The sun is up."


def _files(stack: Stack) -> list[str]:
    with openai.OpenAI(api_key="simulator", base_url=stack.simulator.base_url) as client:
        return [file.id for file in client.files.list()]
