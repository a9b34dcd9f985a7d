"""How to test code that uses a Batch API, with nothing but pytest and `lowtide[simulator]`.

Run it: `pytest examples`. All but the last part needs no Celery. The fixtures come from the plugin
that `conftest.py` names: `pytest_plugins = ["lowtide.testing"]`.
"""

import json

import openai
import pytest

from lowtide import batch_task, chat


# ---- code of yours: it knows the OpenAI client, and nothing of lowtide
def submit(client, texts):
    """Send one batch; returns its id."""
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "gpt-5-mini",
                "messages": [{"role": "user", "content": f"Summarise in 10 words:\n\n{text}"}],
            },
        }
        for number, text in enumerate(texts)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


def collect(client, batch_id):
    """The answers by number, None while the batch is on its way."""
    batch = client.batches.retrieve(batch_id)
    if batch.status not in ("completed", "expired", "cancelled"):
        return None
    if not batch.output_file_id:
        return {}
    content = client.files.content(batch.output_file_id).content
    rows = [json.loads(row) for row in content.split(b"\n") if row]
    return {
        int(row["custom_id"]): row["response"]["body"]["choices"][0]["message"]["content"]
        for row in rows
    }


TEXTS = [
    "The tide is low at noon. Boats lie on the sand.",
    "The tide is high at six. Boats float again.",
    "Nobody fishes on Sunday. The harbour sleeps.",
]


# ---- tests of it
def test_answers_find_their_way_back(batch_client, batch_server):
    batch_id = submit(batch_client, TEXTS)
    batch_server.settle()
    answers = collect(batch_client, batch_id)
    assert all(answers[number] in text for number, text in enumerate(TEXTS))


def test_a_day_of_waiting_takes_no_time(batch_client, batch_server, batch_clock):
    batch_server.turnaround(working="20h")
    batch_id = submit(batch_client, TEXTS)
    batch_clock.advance("19h")
    assert collect(batch_client, batch_id) is None
    batch_clock.advance("2h")
    assert len(collect(batch_client, batch_id)) == 3


def test_what_expired_is_not_there(batch_client, batch_server, batch_clock):
    batch_server.turnaround(working="72h")
    batch_id = submit(batch_client, TEXTS)
    batch_clock.advance("25h")
    assert len(collect(batch_client, batch_id)) == 1


def test_a_refused_upload_is_tried_again(batch_server):
    batch_server.add_fault("rate_limit", match="POST /v1/files", count=1, retry_after=0)
    with openai.OpenAI(base_url=batch_server.base_url, api_key="sk-test") as client:
        submit(client, TEXTS)
    assert batch_server.faults()[0]["hits"] == 1


@pytest.mark.batch_server(seed=7, faults=[{"kind": "line_error", "match": "^1$", "status": 500}])
def test_a_line_that_fails_does_not_spoil_the_others(batch_client, batch_server):
    batch_id = submit(batch_client, TEXTS)
    batch_server.settle()
    assert set(collect(batch_client, batch_id)) == {0, 2}


def test_nothing_is_paid_twice(batch_client, batch_server):
    submit(batch_client, TEXTS)
    batch_server.settle()
    assert batch_server.totals()["billed_twice"] == 0
    submit(batch_client, TEXTS)  # the same requests once more: somebody pays again
    batch_server.settle()
    assert batch_server.totals()["billed_twice"] == 3


# ---- a task of yours, and its test: a worker in a thread, everything else real
@batch_task(model="gpt-5-mini", name="example.review")
def review(text):
    """Two requests, one after the other."""
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} Two looks are better than one.")
    return second.text


def test_a_batch_task(lowtide_app, lowtide_worker, batch_server):
    result = review.delay("The tide is low at noon.")
    assert result.get(timeout=60) == "The tide is low at noon. Two looks are better than one."
    assert batch_server.totals()["billed"] == 2
