"""Tables: upload, see what it would ask and cost, start, watch, download."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from lowtide.runtime import Runtime
from lowtide.tables import FORMATS, Plan, Run, TableError, columns_of, preview, runs_in
from lowtide.tables.plan import PROMPT_TASK
from lowtide.tables.preview import batch_tasks
from worker.web import guard, render
from worker.web.runner import Runner

_ID = re.compile(r"[0-9a-f]{12}")
_MOST_BYTES = 2_000_000_000


def tables(request: Request) -> Response:
    """`/tables`: all runs, and the form for a new one."""
    runner: Runner = request.app.state.runner
    runs = runs_in(runner.folder)
    shown = [(run, run.progress()) for run in runs]
    waiting = [
        (path.parent.name, path.name)
        for path in sorted(runner.folder.glob("*/source.*"))
        if not (path.parent / "run.db").exists()
    ]
    for run in runs:
        run.close()
    return render.page(
        request, "tables.html", title="Tables", runs=shown, waiting=waiting, formats=FORMATS
    )


async def upload(request: Request) -> Response:
    """`POST /tables`: keeps the file and leads to its plan."""
    sent = await guard.form(request)
    file = sent.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise TableError("Choose a file first.")
    if (file.size or 0) > _MOST_BYTES:
        raise TableError(f"The file is larger than {_MOST_BYTES:,} bytes; use `lowtide run`.")
    runner: Runner = request.app.state.runner
    run_id = await run_in_threadpool(_keep, runner.folder, file.filename, file.file)
    return render.back(request, f"/tables/{run_id}")


def table(request: Request) -> Response:
    """`/tables/{id}`: its plan and preview before it is started, its progress afterwards."""
    folder = _folder(request)
    if (folder / "run.db").exists():
        return _progress(request, folder)
    rt: Runtime = request.app.state.rt
    source, name = _source(folder)
    chosen = request.query_params
    plan = _plan(chosen)
    shown, problem = None, ""
    columns: list[str] = []
    try:
        columns = columns_of(source)
        if plan.column or plan.prompt:
            shown = preview(rt.app, source, plan, answer_tokens=_answer_tokens(rt, plan.task))
    except TableError as error:
        problem = error.message
    return render.page(
        request,
        "plan.html",
        title=name,
        run_id=folder.name,
        columns=columns,
        tasks=[task for task in batch_tasks(rt.app) if task != PROMPT_TASK],
        plan=plan,
        chosen=dict(chosen),
        preview=shown,
        problem=problem,
    )


async def act(request: Request) -> Response:
    """`POST /tables/{id}/start|stop|go|remove`."""
    sent = await guard.form(request)
    folder, verb = _folder(request), request.path_params["verb"]
    runner: Runner = request.app.state.runner
    if verb == "start":
        await run_in_threadpool(_create, folder, _plan(sent))
        runner.start(folder.name)
    elif verb == "stop":
        await run_in_threadpool(runner.halt, folder.name)
        await run_in_threadpool(_mark_stopped, folder)
    elif verb == "go":
        runner.start(folder.name)
    elif verb == "remove":
        await run_in_threadpool(runner.halt, folder.name)
        await run_in_threadpool(shutil.rmtree, folder)
        return render.back(request, "/tables", "The table and its answers are removed.")
    else:
        raise HTTPException(404)
    return render.back(request, f"/tables/{folder.name}")


def download(request: Request) -> Response:
    """`/tables/{id}/answers.csv|xlsx|jsonl`: all rows, with what has come back so far."""
    folder, form = _folder(request), request.path_params["form"]
    if form not in FORMATS or not (folder / "run.db").exists():
        raise HTTPException(404)
    run = Run(folder)
    # A name of its own for each download, so that two at once do not meet.
    made = folder / f"answers-{secrets.token_hex(6)}.{form}"
    try:
        run.write(made)
    finally:
        run.close()
    name = f"{Path(run.name).stem}-answers.{form}"
    return FileResponse(
        made, filename=name, background=BackgroundTask(made.unlink, missing_ok=True)
    )


def _progress(request: Request, folder: Path) -> Response:
    run = Run(folder)
    progress = run.progress()
    run.close()
    return render.page(
        request, "run.html", title=run.name, run=run, progress=progress, formats=FORMATS
    )


def _keep(runs: Path, filename: str, file: BinaryIO) -> str:
    suffix = Path(filename).suffix.lower()
    if suffix.removeprefix(".") not in (*FORMATS, "ndjson"):
        raise TableError(
            f"{Path(filename).name} is no table; its name has to end with "
            f"{', '.join('.' + name for name in FORMATS)}."
        )
    run_id = secrets.token_hex(6)
    folder = runs / run_id
    folder.mkdir(parents=True)
    with (folder / f"source{suffix}").open("wb") as kept:
        shutil.copyfileobj(file, kept, 1 << 20)
    (folder / "name").write_text(Path(filename).name[:200])
    return run_id


def _folder(request: Request) -> Path:
    run_id = request.path_params["run_id"]
    folder: Path = request.app.state.runner.folder / run_id
    if not _ID.fullmatch(run_id) or not folder.is_dir():
        raise HTTPException(404, "There is no such table.")
    return folder


def _source(folder: Path) -> tuple[Path, str]:
    source = next(folder.glob("source.*"), None)
    if source is None:
        raise HTTPException(404, "There is no such table.")
    name = folder / "name"
    return source, name.read_text() if name.exists() else source.name


def _plan(given: Mapping[str, Any]) -> Plan:
    """The plan that a form or a query describes.

    Raises:
        TableError: The other arguments are no JSON object.
    """
    text = str(given.get("options") or "").strip()
    try:
        options = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        options = None
    if not isinstance(options, dict):
        raise TableError('Other arguments have to be a JSON object, such as {"max_words": 20}.')
    if given.get("how") == "prompt":
        prompt = str(given.get("prompt") or "")
        return Plan(task=PROMPT_TASK, prompt=prompt or None, options=options)
    task = str(given.get("task") or "")
    return Plan(task=task, column=str(given.get("column") or "") or None, options=options)


def _create(folder: Path, plan: Plan) -> None:
    source, name = _source(folder)
    Run.create(folder, source, plan, name=name).close()


def _mark_stopped(folder: Path) -> None:
    run = Run(folder)
    run.stop()
    run.close()


def _answer_tokens(rt: Runtime, task: str) -> float | None:
    """How long answers of the task were so far, in tokens."""
    for row in rt.ledger.costs("task"):
        if row.key == task and row.answered:
            return row.output_tokens / row.answered
    return None
