"""Every page with a past, and with none; nothing secret on any of them."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from lowtide import control
from lowtide.calls import chat
from lowtide.clock import SimulatedClock
from lowtide.envelope import Body, Envelope
from lowtide.ledger import Attempt
from lowtide.request import Request, encode
from tests.web.conftest import proof
from tests.web.history import CHAT, deliver_batch, record_batch

PAGES = [
    "/",
    "/lanes",
    "/batches",
    "/tables",
    "/costs",
    "/costs?by=lane",
    "/costs?by=day&days=90",
    "/tide",
    "/settings",
    "/find?q=nothing",
]


def waiting(rt, count: int = 3, text: str = "a secret prompt") -> list[str]:
    """Calls in the open buffer of the chat lane; their task ids."""
    lane, body, tokens = encode(chat(text, model=CHAT.model), account="default")
    sealed = Envelope(body=Body.of([text], {}, {}, "json").data, accepted_at=1.0).pack()
    ids = [f"task-{n}" for n in range(count)]
    rt.buffer.append(
        Request(f"{name}.0.0", name, "tasks.summarize", lane, body, sealed, tokens) for name in ids
    )
    return ids


class Checked(HTMLParser):
    """Notes what a page would load, and labels, buttons and headings without words."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.headings = 0

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.headings += tag == "h1"
        if tag in ("script", "img", "link", "iframe"):
            self.loads.append(given.get("src") or given.get("href") or "inline")
        assert "style" not in given, "an inline style, which the policy forbids"
        assert not [name for name in given if name.startswith("on")], "an inline script"


@pytest.mark.parametrize("path", PAGES)
def test_pages_without_anything(page, path) -> None:
    answer = page.get(path)

    assert answer.status_code == (404 if path.startswith("/find") else 200)


@pytest.mark.parametrize("path", PAGES)
def test_pages_with_a_past(page, rt, history, path) -> None:
    waiting(rt)
    text = page.get(path).text
    seen = Checked()
    seen.feed(text)

    assert seen.headings == 1
    assert all(link.startswith("/static/") for link in seen.loads), seen.loads
    assert "sk-secret-key" not in text
    assert "a secret prompt" not in text
    rt.buffer.seal(CHAT.key, only_if_due=False)
    rt.buffer.drop(rt.buffer.sealed()[0].batch_id)


def test_the_overview_counts_what_is_where(page, rt) -> None:
    waiting(rt, 3)
    rt.ledger.create()
    record_batch(rt.ledger, "b1", requests=7, at=rt.clock.now())
    control.pause(rt, CHAT.key, "too dear")

    text = page.get("/").text

    assert re.findall(r"<li><b>([\d,]+)</b>", text) == ["3", "7", "0", "0"]
    assert "is paused: too dear" in text
    control.resume(rt, CHAT.key)
    batch_id = rt.buffer.seal(CHAT.key, only_if_due=False)
    rt.buffer.drop(batch_id)


def test_one_batch_groups_its_errors(page, history) -> None:
    batch = next(batch for batch in history.find_batches(limit=100) if batch.id.endswith("7"))

    text = page.get(f"/batches/{batch.id}").text

    assert "turnaround" in text
    assert "file-" in text


def test_the_requests_of_a_batch_as_a_file(page, history) -> None:
    batch = history.find_batches(limit=1)[0]

    rows = list(csv.DictReader(io.StringIO(page.get(f"/batches/{batch.id}/requests.csv").text)))

    assert len(rows) == batch.requests
    assert {row["batch_id"] for row in rows} == {batch.id}


def test_prompts_are_for_those_who_may_see_them(page, rt, settings) -> None:
    rt.ledger.create()
    record_batch(rt.ledger, "b1", at=1.0)

    assert page.get("/batches/b1/input.jsonl").status_code == 404


def test_calls_that_share_a_line_say_so(page, rt) -> None:
    rt.ledger.create()
    clock = rt.ledger._clock = SimulatedClock(rt.clock.now())
    ids = record_batch(rt.ledger, "b1", requests=2, at=clock.now(), share_key="k")
    deliver_batch(rt.ledger, clock, "b1", ids, took=60)

    assert page.get("/batches/b1").text.count(">shared<") == 1
    assert "which paid" in page.get("/tasks/b1-1").text
    assert "which paid" not in page.get("/tasks/b1-0").text


def test_a_task_tells_why_it_had_no_answer_before_and_why_it_is_held(page, rt) -> None:
    rt.ledger.create()
    ids = record_batch(rt.ledger, "b1", requests=1, at=1.0)
    failed = Attempt(60.0, "b1", "batch_1", 429, "rate_limit_exceeded", "Slow <down>.")
    rt.ledger.requeue("b1", ids, reason="429", into="b2", failed={ids[0]: failed})
    rt.buffer.moved("b2", [("b1-0", ids[0])])
    rt.buffer.set_summary("b2", state="HELD", reason="spend cap of $1.00 a day")

    text = page.get("/tasks/b1-0").text

    assert "in batch_1: 429 rate_limit_exceeded (Slow &lt;down&gt;)" in text
    assert "Held: spend cap of $1.00 a day" in text


def test_a_task_in_its_buffer(page, rt) -> None:
    rt.ledger.create()
    task_id = waiting(rt, 1)[0]

    text = page.get(f"/tasks/{task_id}").text

    assert "buffered" in text
    assert "waits in the buffer" in text
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def test_a_task_in_the_ledger_shows_shapes_alone(page, rt) -> None:
    from lowtide.recording import record

    task_id = waiting(rt, 1)[0]
    record(rt, rt.buffer.seal(CHAT.key, only_if_due=False))

    text = page.get(f"/tasks/{task_id}").text

    assert "&lt;str: 15&gt;" in text
    assert "a secret prompt" not in text
    assert "LOWTIDE_SHOW_PROMPTS" in text


def test_with_the_setting_prompts_are_shown(settings, rt, browser_like) -> None:
    from lowtide.recording import record

    settings["show_prompts"] = True
    page = browser_like(rt)
    task_id = waiting(rt, 1)[0]
    batch_id = rt.buffer.seal(CHAT.key, only_if_due=False)
    record(rt, batch_id)

    assert "a secret prompt" in page.get(f"/tasks/{task_id}").text
    assert "a secret prompt" in page.get(f"/batches/{batch_id}/input.jsonl").text


def test_finding_by_any_id(page, rt, history) -> None:
    batch = history.find_batches(limit=1)[0]
    task_id = history.requests_in(batch.id, limit=1)[0].task_id

    for wanted, path in [
        (batch.id, f"/batches/{batch.id}"),
        (batch.provider_batch_id, f"/batches/{batch.provider_batch_id}"),
        (task_id, f"/tasks/{task_id}"),
        (f"{task_id}.0.0", f"/tasks/{task_id}"),
    ]:
        answer = page.get("/find", params={"q": f" {wanted} "}, follow_redirects=False)
        assert answer.headers["location"] == path


def test_flush_pause_and_resume(page, rt) -> None:
    waiting(rt)
    rt.ledger.create()

    def act(verb: str) -> str:
        answer = page.post(f"/lanes/{verb}", data={"subject": CHAT.key, "proof": proof(page)})
        found = re.search(r'class="said"[^>]*>([^<]+)<', answer.text)
        assert found
        return found[1]

    assert "is paused" in act("pause")
    assert control.paused(rt, CHAT.key) is not None
    assert "goes on" in act("resume")
    assert control.paused(rt, CHAT.key) is None
    assert "is on its way" in act("flush")
    assert rt.buffer.sealed()[0].requests == 3
    assert "Nothing waits" in act("flush")
    rt.buffer.drop(rt.buffer.sealed()[0].batch_id)


def test_what_cannot_be_done_is_told(page, rt, history) -> None:
    waiting(rt)
    batch = history.find_batches(states=("DELIVERED",), limit=1)[0]
    field = proof(page)

    cancel = page.post(f"/batches/{batch.id}/cancel", data={"proof": field})
    unknown = page.post("/lanes/flush", data={"proof": field, "subject": "no:such:lane"})

    assert cancel.status_code == 409
    assert "nothing left to cancel" in cancel.text
    assert unknown.status_code == 404
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def test_a_part_that_is_away_has_a_page(page, rt, monkeypatch) -> None:
    from redis.exceptions import ConnectionError as RedisConnectionError

    def away(*_):
        raise RedisConnectionError("refused")

    monkeypatch.setattr("lowtide.buffer.Buffer.lanes", away)
    page._transport.raise_server_exceptions = False

    answer = page.get("/lanes")

    assert answer.status_code == 503
    assert "nothing is lost" in answer.text


def test_ready_says_which_part_is_not(page, rt, monkeypatch) -> None:
    assert page.get("/ready").json() == {"redis": True, "ledger": True}

    monkeypatch.setattr("lowtide.ledger.Ledger.check", lambda _: ["it is away"])

    answer = page.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"redis": True, "ledger": False}
