"""A table on the page: uploaded, previewed, started, carried on, downloaded."""

from __future__ import annotations

import csv
import io
import re

import pytest

from lowtide.tables import Run
from tests.plugins.stack import until
from tests.web.conftest import proof

CSV = "mail,city\nThe box was wet.,Kiel\n,Bonn\nboom,Köln\nAll is well.,Ulm\n"


def upload(page, content: str = CSV, name: str = "mails.csv"):
    return page.post(
        "/tables",
        data={"proof": proof(page, "/tables")},
        files={"file": (name, content.encode(), "text/csv")},
    )


@pytest.fixture
def backend(rt, monkeypatch):
    """What was sent; answers are put into the real result backend at once."""
    sent = []

    def delay_many(app, task, calls, *, task_ids):
        for call, task_id in zip(calls, task_ids, strict=True):
            sent.append((task, *call.args))
            if "boom" in call.args[0]:
                app.backend.mark_as_failure(task_id, ValueError("this text cannot be"))
            else:
                app.backend.mark_as_done(task_id, f"Answer to {call.args[0]}")

    monkeypatch.setattr("lowtide.bulk.delay_many", delay_many)
    return sent


def test_a_preview_shows_three_rows_and_the_price(page) -> None:
    uploaded = upload(page)

    shown = page.get(f"{uploaded.url}?how=task&task=tasks.summarize&column=mail").text

    assert "Summarise in 60 words: The box was wet." in shown
    assert "ValueError: this text cannot be" in shown
    assert "4</b><span>rows, 1 without text" in shown
    assert re.search(r"about (\$|&lt; \$)0", shown)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"how": "prompt", "prompt": "Hello {who}"}, "no column &#39;who&#39;"),
        ({"how": "prompt", "prompt": "Hello"}, "names no column"),
        ({"how": "task", "task": "tasks.none", "column": "mail"}, "No batch task is named"),
    ],
)
def test_a_plan_that_does_not_fit_says_why(page, query, told) -> None:
    uploaded = upload(page)

    assert told in page.get(str(uploaded.url), params=query).text


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("x", "letter.docx", "is no table"),
        ("a,a\n1,2", "t.csv", "twice"),
        ("", "t.csv", "first row"),
    ],
)
def test_a_file_that_is_no_table_says_why(page, content, name, told) -> None:
    assert told in upload(page, content, name).text


def test_from_upload_to_download(page, rt, backend) -> None:
    uploaded = upload(page)
    run = str(uploaded.url).removesuffix("/")
    plan = {"how": "prompt", "prompt": "From {city}: {mail}", "proof": proof(page, "/tables")}

    page.post(f"{run}/start", data=plan)
    until(lambda: "all rows have come back" in page.get(run).text, "the run is finished")
    answers = page.get(f"{run}/answers.csv")

    rows = list(csv.DictReader(io.StringIO(answers.content.decode("utf-8-sig"))))
    assert [row["answer"] for row in rows] == [
        "Answer to From Kiel: The box was wet.",
        "Answer to From Bonn: ",
        "",
        "Answer to From Ulm: All is well.",
    ]
    assert rows[2]["error"] == "this text cannot be"
    assert 'filename="mails-answers.csv"' in answers.headers["content-disposition"]
    for form in ("xlsx", "jsonl"):
        assert page.get(f"{run}/answers.{form}").status_code == 200
    page.post(f"{run}/remove", data={"proof": proof(page, "/tables")})
    assert page.get(run).status_code == 404
    assert not list((rt.settings.home / "runs").iterdir())


def test_a_page_that_starts_again_carries_on(page, rt, browser_like, backend, monkeypatch) -> None:
    uploaded = upload(page)
    run_id = str(uploaded.url).rsplit("/", 1)[-1]
    started = []
    monkeypatch.setattr("worker.web.runner.Runner.start", lambda _, name: started.append(name))
    plan = {"how": "prompt", "prompt": "{mail}", "proof": proof(page, "/tables")}

    page.post(f"/tables/{run_id}/start", data=plan)
    with browser_like(rt):
        assert started == [run_id, run_id]
    page.post(f"/tables/{run_id}/stop", data={"proof": proof(page, "/tables")})
    with browser_like(rt):
        assert started == [run_id, run_id]


@pytest.mark.parametrize("path", ["/tables/..%2f..%2fetc", "/tables/zzzzzzzzzzzz", "/tables/abc"])
def test_no_other_folder_can_be_reached(page, path) -> None:
    assert page.get(path).status_code == 404


def test_a_run_goes_on_where_it_stood(rt, tmp_path, backend, monkeypatch) -> None:
    from lowtide import bulk
    from lowtide.tables import Plan

    source = tmp_path / "many.csv"
    source.write_text("text\n" + "\n".join(f"row {n}" for n in range(1200)) + "\n")
    run = Run.of_command(tmp_path / "runs", source, Plan(column="text"), tmp_path / "out.csv")
    whole = bulk.delay_many
    calls = 0

    def broken(*args, **kwargs):
        nonlocal calls
        calls += 1
        whole(*args, **kwargs)
        if calls == 2:
            raise OSError("the wire is cut")

    monkeypatch.setattr("lowtide.bulk.delay_many", broken)
    with pytest.raises(OSError, match="wire"):
        run.go(rt.app)
    assert run.progress().trouble == "OSError: the wire is cut"
    ids = [run.task_id(n) for n in range(1200)]
    run.close()

    again = Run.of_command(tmp_path / "runs", source, Plan(column="text"), tmp_path / "out.csv")
    progress = again.go(rt.app)

    assert progress.finished
    assert progress.answered == 1200
    assert [again.task_id(n) for n in range(1200)] == ids
    assert len(set(ids)) == 1200
    # What was on the wire when it was cut is sent again, under the same ids.
    assert len(backend) == 1700
    assert again.write(tmp_path / "out.csv") == 1200
    assert (tmp_path / "out.csv").read_text().splitlines()[-1] == "row 1199,Answer to row 1199,"
    again.close()
