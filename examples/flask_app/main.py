"""Slogans out of descriptions, a form and a page: `flask --app main run`."""

from celery.result import GroupResult
from flask import Flask, abort, redirect, render_template_string, request, url_for
from jobs import app as celery_app
from jobs import shorten

import lowtide

app = Flask(__name__)

FORM = """<!doctype html><title>Slogans</title><h1>Slogans</h1>
<form method=post><p><label>One description a line<br>
<textarea name=lines rows=8 cols=60 required></textarea></label></p>
<button>Shorten</button></form>"""
PAGE = """<!doctype html><title>Slogans</title><h1>{{ progress.done }} of {{ progress.total }}</h1>
{% if progress.finished %}<ol>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ol>
{% else %}<meta http-equiv=refresh content=5><p>{{ progress.buffered }} wait,
{{ progress.submitted }} are at the provider.</p>{% endif %}"""


@app.get("/")
def form() -> str:
    """Where descriptions are typed in."""
    return FORM


@app.post("/")
def ask():
    """Sends one call for each line, in one message."""
    lines = [line for line in request.form["lines"].splitlines() if line.strip()]
    group = shorten.delay_many(lines)
    group.save()
    return redirect(url_for("look", group_id=group.id))


@app.get("/slogans/<group_id>")
def look(group_id: str) -> str:
    """How far they are, and the slogans once all have come."""
    group = GroupResult.restore(group_id, app=celery_app)
    if group is None:
        abort(404)
    progress = lowtide.progress(group)
    lines = [result.result for result in group.results] if progress.finished else []
    return render_template_string(PAGE, progress=progress, lines=lines)
