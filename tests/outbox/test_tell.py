"""One pass over the outbox at a time: what is accepted, refused, gone, late, or nobody's."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from celery.result import AsyncResult
from prometheus_client import generate_latest

from lowtide import control, keys, messages, metrics, named_backend, runtime, settings, telling
from lowtide.clock import SimulatedClock
from lowtide.connect import connect
from lowtide.destinations import KEPT
from lowtide.doctor import Level
from lowtide.doctor.outbox_checks import destinations
from lowtide.endings import Ending, failed
from lowtide.ledger import NewMessage
from lowtide.messages import Told
from lowtide.standing import standings
from lowtide.sweep import sweep
from lowtide.tell import PATIENCE, counts, tell
from tests.outbox.conftest import SECRET
from tests.outbox.receiver import Receiver

ANSWER = "a very private answer"


@pytest.fixture(autouse=True)
def clock(rt: runtime.Runtime) -> SimulatedClock:
    """Time that the test moves, from now on: Redis and receivers have clocks of their own."""
    rt.clock = SimulatedClock(time.time())
    return rt.clock


def post(rt: runtime.Runtime, *numbers: int, to: str = "crm", ending: Ending | None = None) -> None:
    made = []
    for number in numbers:
        told = Told(
            f"t{number}.0.0",
            "tests.task",
            f"t{number}",
            ending or Ending("SUCCESS", f"{ANSWER} {number}"),
            ended_at=rt.clock.now(),
        )
        made.append(NewMessage(to, told.custom_id, messages.pack(rt.app, told)))
    telling.post(rt, made)


def waiting(rt: runtime.Runtime, name: str = "crm") -> int:
    return sum(each.waiting for each in standings(rt) if each.name == name)


def trouble(rt: runtime.Runtime, name: str = "crm") -> str | None:
    (found,) = [each.trouble for each in standings(rt) if each.name == name]
    return found


def test_what_is_accepted_is_gone_and_counted(rt: runtime.Runtime, crm: Receiver) -> None:
    post(rt, 1, 2, 3)

    assert tell(rt, "crm") is None

    assert set(crm.accepted) == {"t1.0.0", "t2.0.0", "t3.0.0"}
    assert crm.forged == 0
    assert waiting(rt) == 0
    assert counts(rt) == {("crm", "accepted"): 3}
    assert tell(rt, "crm") is None
    assert sum(crm.tries.values()) == 3


def test_what_is_refused_waits_longer_each_time(
    rt: runtime.Runtime, crm: Receiver, clock: SimulatedClock
) -> None:
    post(rt, 1)
    waits = []
    for _ in range(3):
        crm.statuses[:] = [503]
        after = tell(rt, "crm")
        assert after is not None
        assert after.at is not None
        waits.append(after.at - clock.now())
        clock.advance(waits[-1] - 0.1)
        assert tell(rt, "crm") is not None  # too early
        clock.advance(0.2)

    assert sum(crm.tries.values()) == 3
    assert 7.5 <= waits[0] <= 12.5
    assert 15 <= waits[1] <= 25
    assert 30 <= waits[2] <= 50
    assert tell(rt, "crm") is None
    assert crm.accepted["t1.0.0"]["data"]["result"] == f"{ANSWER} 1"


@pytest.mark.parametrize(("named", "wait"), [("300", 300), ("3600", 3600), ("86400", 3600)])
def test_a_receiver_that_names_a_time_is_left_alone_until_then_for_an_hour_at_most(
    rt: runtime.Runtime, crm: Receiver, clock: SimulatedClock, named: str, wait: float
) -> None:
    post(rt, 1)
    crm.statuses[:] = [429]
    crm.headers["retry-after"] = named

    after = tell(rt, "crm")

    assert after is not None
    assert after.at == pytest.approx(clock.now() + wait, abs=1)


def test_one_that_is_down_gets_one_wave_a_pass(rt: runtime.Runtime, crm: Receiver) -> None:
    post(rt, *range(50))
    crm.statuses[:] = [500] * 50

    after = tell(rt, "crm")

    assert sum(crm.tries.values()) == 8
    assert waiting(rt) == 50
    assert after is not None
    assert after.at is not None
    assert after.at > rt.clock.now() + 5
    crm.statuses.clear()
    tell(rt, "crm")
    assert len(crm.accepted) == 42


def test_one_message_that_is_refused_holds_up_no_other(rt: runtime.Runtime, crm: Receiver) -> None:
    post(rt, *range(40))
    crm.statuses[:] = [400]

    tell(rt, "crm")

    assert len(crm.accepted) == 39
    assert waiting(rt) == 1


def test_gone_is_said_and_ends_the_sending_until_somebody_resumes_it(
    rt: runtime.Runtime, crm: Receiver, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    post(rt, 1, 2)
    crm.statuses[:] = [410, 410]

    assert tell(rt, "crm") is not None
    clock.advance(3600)
    assert tell(rt, "crm") is not None

    assert sum(crm.tries.values()) == 2
    assert waiting(rt) == 2
    assert "Destination crm answered 410 Gone" in caplog.text
    assert "`lowtide resume to:crm` tries again" in str(trouble(rt))
    assert control.resume(rt, "to:crm")
    due = rt.timers.due_at("tell", "crm")
    assert due is not None
    assert due <= clock.now()
    assert tell(rt, "crm") is None
    assert len(crm.accepted) == 2


def test_one_that_is_no_longer_set_is_said_and_loses_nothing(
    rt: runtime.Runtime, crm: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    post(rt, 1)
    known = dict(rt.settings.destinations)
    rt.settings.destinations.pop("crm")

    assert tell(rt, "crm") is not None
    assert tell(rt, "crm") is not None

    assert caplog.text.count("No destination is named 'crm' in LOWTIDE_DESTINATIONS") == 1
    assert "`lowtide outbox --drop crm`" in str(trouble(rt))
    assert waiting(rt) == 1
    rt.settings.destinations.update(known)
    assert tell(rt, "crm") is None
    assert "t1.0.0" in crm.accepted


def test_a_secret_that_is_missing_is_said(rt: runtime.Runtime, crm: Receiver) -> None:
    given = settings.load({"destinations": {"crm": {"webhook": crm.url, "secret_env": "CRM_KEY"}}})
    rt.settings.destinations["crm"] = given.destinations["crm"]
    post(rt, 1)

    assert tell(rt, "crm") is not None

    assert "the variable CRM_KEY is not set here" in str(trouble(rt))
    assert not crm.tries


def test_while_a_secret_is_changed_either_of_the_two_is_good(
    rt: runtime.Runtime, crm: Receiver
) -> None:
    both = {"webhook": crm.url, "secret": f"whsec_bmV3 {SECRET}"}
    rt.settings.destinations["crm"] = settings.load({"destinations": {"crm": both}}).destinations[
        "crm"
    ]
    post(rt, 1)

    assert tell(rt, "crm") is None
    assert crm.forged == 0


def test_several_replicas_share_the_work_and_send_each_once(
    rt: runtime.Runtime, crm: Receiver
) -> None:
    post(rt, *range(120))

    with ThreadPoolExecutor(4) as pool:
        for found in [pool.submit(tell, rt, "crm") for _ in range(4)]:
            found.result()
    tell(rt, "crm")

    assert len(crm.accepted) == 120
    assert set(crm.tries.values()) == {1}


def test_a_redirect_is_not_followed(rt: runtime.Runtime, crm: Receiver) -> None:
    crm.statuses[:] = [307]
    crm.headers["location"] = "http://127.0.0.1:9/elsewhere"
    post(rt, 1)

    assert tell(rt, "crm") is not None

    (backlog,) = rt.ledger.backlogs()
    assert backlog.error == "it answered 307"


def test_a_receiver_that_never_answers_is_not_waited_for_longer_than_its_time(
    rt: runtime.Runtime, clock: SimulatedClock
) -> None:
    over = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            over.wait(20)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    given = {"webhook": url, "secret": SECRET, "timeout": "0.3s"}
    rt.settings.destinations["crm"] = settings.load({"destinations": {"crm": given}}).destinations[
        "crm"
    ]
    post(rt, 1)
    began = time.monotonic()

    assert tell(rt, "crm") is not None

    assert time.monotonic() - began < 5
    (backlog,) = rt.ledger.backlogs()
    assert backlog.error == "ReadTimeout"
    over.set()
    server.shutdown()
    server.server_close()


def test_an_entry_that_cannot_be_read_holds_up_no_other(rt: runtime.Runtime, crm: Receiver) -> None:
    telling.post(rt, [NewMessage("crm", "broken.0.0", b"\x00rubbish")])
    post(rt, 1)

    tell(rt, "crm")

    assert set(crm.accepted) == {"t1.0.0"}
    (backlog,) = rt.ledger.backlogs()
    assert str(backlog.error).startswith("the entry cannot be read")


def test_a_stream_gets_them_and_forgets_the_oldest(rt: runtime.Runtime) -> None:
    post(rt, *range(400), to="feed")

    assert tell(rt, "feed") is None

    redis: Any = connect(rt.redis_url)
    kept = redis.xlen("feed")
    assert 100 <= kept < 400
    _, last = redis.xrevrange("feed", count=1)[0]
    body = json.loads(last[b"body"])
    assert last[b"id"] == body["data"]["request"].encode()
    assert last[b"task_id"] == body["data"]["task_id"].encode()


def test_a_stream_whose_redis_is_away_gets_them_later(
    rt: runtime.Runtime, clock: SimulatedClock
) -> None:
    rt.settings.destinations["feed"] = settings.load(
        {"destinations": {"feed": {"stream": "feed", "redis_url": "redis://127.0.0.1:9/0"}}}
    ).destinations["feed"]
    post(rt, 1, 2, to="feed")

    assert tell(rt, "feed") is not None

    (backlog,) = rt.ledger.backlogs()
    assert (backlog.failing, backlog.error) == (2, "ConnectionError")


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_named_backend_reads_as_any_of_celerys(rt: runtime.Runtime, serializer: str) -> None:
    rt.app.conf.update(result_serializer=serializer, accept_content=["json", "pickle"])
    post(rt, 1, to="results:archive", ending=Ending("SUCCESS", {"a": [1, None, "é"]}))
    post(rt, 2, to="results:archive", ending=failed(rt.app, ValueError("no good"), "Traceback …"))

    assert tell(rt, "results:archive") is None

    archive = named_backend("archive", rt.app)
    good = AsyncResult("t1", backend=archive, app=rt.app)
    bad = AsyncResult("t2", backend=archive, app=rt.app)
    assert good.get(timeout=5) == {"a": [1, None, "é"]}
    assert (bad.state, repr(bad.result)) == ("FAILURE", repr(ValueError("no good")))
    assert bad.traceback == "Traceback …"


def test_what_json_does_not_know_is_told_as_text(rt: runtime.Runtime, crm: Receiver) -> None:
    rt.app.conf.update(result_serializer="pickle", accept_content=["json", "pickle"])
    post(rt, 1, ending=Ending("SUCCESS", {"half": "\ud83d", "set": {1}, 2: 3.5, "big": 2**70}))

    assert tell(rt, "crm") is None

    assert crm.accepted["t1.0.0"]["data"]["result"]["set"] == "{1}"


def test_results_that_are_kept_go_when_their_time_is_over(
    rt: runtime.Runtime, clock: SimulatedClock
) -> None:
    told = Told("t1.0.0", "tests.task", "t1", Ending("SUCCESS", ANSWER))
    blob = messages.pack(rt.app, told)
    rt.ledger.post([NewMessage(KEPT, "t1.0.0", blob, due=clock.now() + 100)])

    assert tell(rt, KEPT) is not None
    assert rt.ledger.blobs_for(KEPT, ["t1.0.0"]) == {"t1.0.0": blob}
    assert KEPT not in [each.name for each in standings(rt)]
    assert rt.ledger.next_messages() == {}
    clock.advance(101)
    assert tell(rt, KEPT) is None
    assert rt.ledger.blobs_for(KEPT, ["t1.0.0"]) == {}


def test_the_sweep_arms_what_has_no_timer(rt: runtime.Runtime, clock: SimulatedClock) -> None:
    post(rt, 1)
    rt.timers.disarm("tell", "crm")

    sweep(rt)

    assert rt.timers.due_at("tell", "crm") == pytest.approx(clock.now(), abs=1)


def test_somebody_is_told_of_what_is_not_accepted_for_long_and_never_of_what_it_holds(
    rt: runtime.Runtime, crm: Receiver, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    post(rt, 1)
    crm.statuses[:] = [500] * 9
    tell(rt, "crm")
    assert trouble(rt) is None
    assert "not accepted" not in caplog.text

    clock.advance(PATIENCE + 1)
    tell(rt, "crm")
    clock.advance(PATIENCE)
    tell(rt, "crm")

    (said,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert said == (
        "Destination crm: 1 messages are not accepted; the last reason: it answered 500. "
        "They wait; none is given up."
    )
    assert "it has not accepted results for 30 min: it answered 500" in str(trouble(rt))
    levels = {finding.part: finding.level for finding in destinations(rt)}
    assert levels["Destination crm"] is Level.FAILURE
    assert levels["Destination feed"] is Level.OK
    shown = generate_latest(metrics.registry(rt)).decode()
    assert 'lowtide_outbox_results{destination="crm"} 1.0' in shown
    assert 'lowtide_told_total{destination="crm",result="refused"} 3.0' in shown
    assert ANSWER not in caplog.text


def test_what_is_not_accepted_is_said_once_an_hour(
    rt: runtime.Runtime, crm: Receiver, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    post(rt, 1)
    crm.statuses[:] = [500] * 9
    said = keys.alerted(rt.settings.namespace, "crm")

    def tell_later() -> int:
        clock.advance(PATIENCE + 1)
        tell(rt, "crm")
        return sum(record.levelno == logging.ERROR for record in caplog.records)

    assert [tell_later() for _ in range(3)] == [1, 1, 1]
    assert 3_540 < rt.redis.ttl(said) <= 3_600
    rt.redis.delete(said)  # the hour is over
    assert tell_later() == 2
