"""50 requests, every fifth faulty: faults at which other libraries lose, hang, or pay twice.

Real workers, a real Redis, the simulator over HTTP. Every call ends with its own answer, or with
the provider's own reason where the provider refuses it, and each answer is paid for once.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery.result import GroupResult

from lowtide import control, runtime
from lowtide.errors import AttemptsExhausted, RequestRejected
from lowtide.simulator import Steering
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.faults_peers.app"
COUNT = 50
FAULTY = range(4, COUNT, 5)


@dataclass
class Peers:
    """A worker with its provider, and a client's app."""

    stack: Stack
    steering: Steering
    client: Any

    @property
    def rt(self) -> runtime.Runtime:
        return runtime.of(self.client.app)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("peers"), redis.url) as stack:
        # All fifty are one batch, and a creation in doubt is settled soon.
        # A step that failed is taken again when its lease ends.
        stack.env |= {"LOWTIDE_MAX_REQUESTS": str(COUNT), "LOWTIDE_ADOPT_WAIT": "2s"}
        stack.env["LOWTIDE_LEASE"] = "5s"
        stack.worker(MODULE)
        client = client_of(MODULE)
        stack.ready(client.app)
        yield Peers(stack, Steering(stack.simulator.root), client)
    redis.stop()


@pytest.fixture(autouse=True)
def _no_faults_left(peers: Peers) -> Iterator[None]:
    yield
    peers.steering.clear_faults()


def text(number: int) -> str:
    return f"Parcel number {number} is at sea."


class Run:
    """Fifty calls; every fifth task id ends with "x", so that faults can find them."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.name = f"p{uuid.uuid4().hex[:12]}"
        self.ids = [f"{self.name}-{n:02d}{'x' if n in FAULTY else ''}" for n in range(COUNT)]

    @property
    def faulty(self) -> str:
        """Matches the custom_ids of every fifth request of this run."""
        return rf"^{self.name}-\d+x\."

    def answers(self) -> list[Any]:
        """Sends the calls, and waits for what each returned or raised."""
        task = self.peers.client.summarize
        sent = task.delay_many([text(n) for n in range(COUNT)], task_ids=self.ids)
        assert isinstance(sent, GroupResult)
        try:
            return list(sent.get(timeout=60, propagate=False))
        except Exception:
            raise AssertionError(self.peers.stack.logs()) from None

    def payments(self) -> list[int]:
        """How often the provider was paid for each request."""
        rows = self.peers.steering.requests()
        paid = {row["custom_id"]: row["billed"] for row in rows}
        return [paid.get(f"{task_id}.0.0", 0) for task_id in self.ids]

    def batches(self) -> int:
        """How many batches at the provider held any of them."""
        rows = self.peers.steering.requests()
        mine = [row for row in rows if row["custom_id"].startswith(self.name)]
        return len({batch for row in mine for batch in row["batches"]})

    def closed(self) -> None:
        """Every batch is at its end, and no file of it is left at the provider."""
        states = {"DELIVERED", "CANCELLED"}

        def over() -> bool:
            return all(batch.state in states for batch in self.peers.rt.ledger.batches())

        until(over, "all batches are closed")


def all_answered_and_paid_once(peers: Peers) -> Run:
    run = Run(peers)
    assert run.answers() == [text(n) for n in range(COUNT)]
    assert run.payments() == [1] * COUNT
    run.closed()
    return run


def test_without_any_fault_it_is_one_batch(peers: Peers) -> None:
    assert all_answered_and_paid_once(peers).batches() == 1


def test_400_lines_in_the_error_file(peers: Peers) -> None:
    run = Run(peers)
    peers.steering.add_fault("line_error", match=run.faulty, status=400, message="Bad words.")

    answers = run.answers()

    assert [a for n, a in enumerate(answers) if n not in FAULTY] == [
        text(n) for n in range(COUNT) if n not in FAULTY
    ]
    for number in FAULTY:
        error = answers[number]
        assert isinstance(error, RequestRejected)
        assert (error.code, error.message) == ("invalid_request", "Bad words.")
        assert error.details["status"] == 400
        assert error.details["task_id"] == run.ids[number]
        assert error.details["lane"] == "default:/v1/chat/completions:gpt-5-mini"
        assert error.details["batch"].startswith("batch_")
    assert run.payments() == [0 if n in FAULTY else 1 for n in range(COUNT)]
    assert run.batches() == 1


def test_ids_missing_from_both_files(peers: Peers) -> None:
    run = Run(peers)
    peers.steering.add_fault("line_missing", match=run.faulty, count=len(FAULTY))

    assert run.answers() == [text(n) for n in range(COUNT)]
    # The provider billed what it lost: nobody else's are asked again.
    assert run.payments() == [2 if n in FAULTY else 1 for n in range(COUNT)]
    assert run.batches() == 2


def test_expired_with_40_done(peers: Peers) -> None:
    peers.steering.add_fault("expire", share=0.8, after=0.5, count=1)

    run = all_answered_and_paid_once(peers)

    assert run.batches() == 2


def test_expired_with_the_rest_in_neither_file(peers: Peers) -> None:
    peers.steering.add_fault("expire", share=0.8, after=0.5, count=1)
    peers.steering.add_fault("unfinished_missing", count=1)

    all_answered_and_paid_once(peers)


def test_token_limit_exceeded(peers: Peers) -> None:
    peers.steering.add_fault("token_limit", count=2)

    assert all_answered_and_paid_once(peers).batches() == 1


def test_two_500s_while_polling(peers: Peers) -> None:
    peers.steering.add_fault("server_error", match="^GET /v1/batches", count=2)

    assert all_answered_and_paid_once(peers).batches() == 1


@pytest.mark.parametrize("kind", ["error_after", "cut_after"])
def test_create_fails_after_creating(peers: Peers, kind: str) -> None:
    peers.steering.add_fault(kind, match="^POST /v1/batches$", count=1)

    assert all_answered_and_paid_once(peers).batches() == 1


@pytest.mark.parametrize("kind", ["cut_before", "server_error", "refuse"])
def test_create_fails_before_creating(peers: Peers, kind: str) -> None:
    peers.steering.add_fault(kind, match="^POST /v1/batches$", count=1)

    assert all_answered_and_paid_once(peers).batches() == 1


def test_create_and_upload_are_put_off(peers: Peers) -> None:
    peers.steering.add_fault("rate_limit", match="^POST /v1/batches$", count=1, retry_after=0.2)
    peers.steering.add_fault("server_error", match="^POST /v1/files$", count=1)

    assert all_answered_and_paid_once(peers).batches() == 1


@pytest.mark.parametrize(
    "params",
    [
        {"status": 0},
        {"status": 429},
        {"status": 500},
        {"status": 503},
        {"code": "request_timeout"},
        {"code": "batch_expired"},
        {"code": "something_new"},
    ],
    ids=str,
)
def test_lines_that_failed_in_passing(peers: Peers, params: dict[str, Any]) -> None:
    run = Run(peers)
    peers.steering.add_fault("line_error", match=run.faulty, count=len(FAULTY), **params)

    assert run.answers() == [text(n) for n in range(COUNT)]
    assert run.payments() == [1] * COUNT
    assert run.batches() == 2


def test_lines_that_never_succeed_fail_with_the_list_of_attempts(peers: Peers) -> None:
    run = Run(peers)
    peers.steering.add_fault("line_error", match=run.faulty, status=500)

    answers = run.answers()

    assert [a for n, a in enumerate(answers) if n not in FAULTY] == [
        text(n) for n in range(COUNT) if n not in FAULTY
    ]
    failed = [answers[n] for n in FAULTY]
    assert all(isinstance(error, AttemptsExhausted) for error in failed)
    for error in failed:
        assert len(error.attempts) == peers.rt.settings.max_attempts
        assert {(each["status"], each["code"]) for each in error.attempts} == {
            (500, "server_error")
        }
        batches = [each["provider_batch"] for each in error.attempts]
        assert len(set(batches)) == len(batches)
        assert all(batch in error.message for batch in batches)
        assert "\n" not in error.message
    assert run.payments() == [0 if n in FAULTY else 1 for n in range(COUNT)]


def test_separators_duplicates_and_strangers_in_the_files(peers: Peers) -> None:
    run = Run(peers)
    for kind in ("separators", "line_duplicate", "line_unknown_id"):
        peers.steering.add_fault(kind, match=f"^{run.name}")

    answers = run.answers()

    assert [each.replace("\u2028\u2029\u0085", "") for each in answers] == [
        text(n) for n in range(COUNT)
    ]
    assert all("\u2028" in each for each in answers)
    assert run.payments() == [1] * COUNT
    assert run.batches() == 1


@pytest.mark.parametrize("kind", ["truncate", "cut_middle", "content_missing", "server_error"])
def test_downloads_that_fail_at_first(peers: Peers, kind: str) -> None:
    peers.steering.add_fault(kind, match=r"^GET /v1/files/[^/]+/content$", count=2)

    assert all_answered_and_paid_once(peers).batches() == 1


@pytest.mark.parametrize(
    "kind",
    ["empty_error_file", "empty_ids", "omit_nulls", "iso_timestamps", "crlf", "no_final_newline", "unknown_status"],
)  # fmt: skip
def test_oddities_of_other_services(peers: Peers, kind: str) -> None:
    peers.steering.add_fault(kind, count=1)

    assert all_answered_and_paid_once(peers).batches() == 1


def test_the_account_is_out_of_money_and_pays_again(peers: Peers) -> None:
    peers.steering.add_fault("insufficient_quota", count=1)
    run = Run(peers)
    task = peers.client.summarize
    sent = task.delay_many([text(n) for n in range(COUNT)], task_ids=run.ids)
    held = until(
        lambda: [b for b in peers.rt.ledger.batches() if b.state == "HELD"], "the batch is held"
    )

    assert "insufficient_quota" in str(held[0].reason)
    assert control.resume(peers.rt, "default")
    assert list(sent.get(timeout=60)) == [text(n) for n in range(COUNT)]
    assert run.payments() == [1] * COUNT


def test_the_money_booked_is_what_was_used(peers: Peers) -> None:
    run = all_answered_and_paid_once(peers)

    booked = [row for task_id in run.ids for row in peers.rt.ledger.task(task_id)]
    assert Counter(row.state for row in booked) == {"DELIVERED": COUNT}
    assert all(row.input_tokens and row.output_tokens and row.cost for row in booked)
    assert all(row.full_price == pytest.approx(2 * (row.cost or 0.0)) for row in booked)
