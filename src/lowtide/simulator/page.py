"""The view for a person: one HTML page of batches, files, faults and the bill. No script needed."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

from lowtide.simulator import report
from lowtide.simulator.hooks import Hooks
from lowtide.simulator.records import BatchRecord, FileRecord
from lowtide.simulator.world import World

_SHOWN = 50
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
header { display: flex; gap: 1.5rem; align-items: baseline; flex-wrap: wrap; }
header form { display: inline; } .dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; } td.n, th.n { text-align: right; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { font-weight: 600; } td { font-variant-numeric: tabular-nums; }
code { font: 12px ui-monospace, monospace; } .wide { overflow-x: auto; }
.s { padding: .05rem .5rem; border-radius: 1rem; background: #8883; white-space: nowrap; }
.completed { background: #2a94; } .failed, .expired { background: #d444; }
.cancelled, .cancelling { background: #c914; } .in_progress, .finalizing { background: #48d4; }
.bar { background: var(--line); border-radius: 3px; height: 6px; min-width: 8rem; margin: .5rem 0; }
.bar i { display: block; height: 100%; border-radius: 3px; background: #48d; }
.warn { color: #d44; font-weight: 600; } button { font: inherit; }
"""
_SCRIPT = """
for (const button of document.querySelectorAll("button[data-advance]"))
  button.onclick = async () => {
    await fetch("clock", {method: "POST", body: JSON.stringify({advance: button.dataset.advance})});
    location.reload();
  };
"""


def render(world: World) -> str:
    """The page as HTML; it shows itself anew every five seconds."""
    batches, more = world.store.list_batches(None, None, _SHOWN)
    files = [
        file
        for account in world.settings.accounts
        for file in world.store.list_files(account.name, None, _SHOWN, "desc", None)[0]
    ]
    parts = [
        _head(world),
        _section("Bill", _bill(report.totals(world.store))),
        _section(f"Batches{' (the latest)' if more else ''}", _batches(batches)),
        _section("Files", _files(files)),
        _section("Faults", _faults(world.faults.rules())),
        _section("Webhooks", _webhooks(world.hooks)),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>lowtide simulator</title>"
        '<meta name=viewport content="width=device-width"><meta http-equiv=refresh content=5>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}<script>{_SCRIPT}</script>"
    )


def _head(world: World) -> str:
    clock = world.clock_state()
    stands = ", standing still" if clock["frozen"] else ""
    who = f"upstream {world.settings.upstream}" if world.settings.upstream else "built-in answers"
    buttons = "".join(
        f"<button data-advance={step}>+{step}</button> " for step in ("1m", "1h", "24h")
    )
    return (
        f"<header><h1>lowtide simulator</h1><span>{_time(clock['now'])}{stands}</span>"
        f"<span>{buttons}</span><span class=dim>{escape(who)}, seed {world.settings.seed}, "
        f"chaos {world.settings.chaos}</span></header>"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2><div class=wide>{content}</div>"


def _table(heads: str, rows: list[list[str]], empty: str) -> str:
    """A table; a head that ends with # is a column of numbers."""
    if not rows:
        return f"<p class=dim>{escape(empty)}</p>"
    names = heads.split("|")
    kinds = [" class=n" if name.endswith("#") else "" for name in names]
    head = "".join(f"<th{k}>{n.rstrip('#')}</th>" for n, k in zip(names, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{c}</td>" for c, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _bill(totals: dict[str, Any]) -> str:
    twice = totals["billed_twice"]
    note = (
        f"<p class=warn>{twice:,} requests were paid for more than once.</p>"
        if twice
        else "<p class=dim>No batch request was paid for twice.</p>"
    )
    rows = [
        [
            f"<code>{escape(str(row['model']))}</code>", row["mode"], f"{row['billed']:,}",
            f"{row['input_tokens']:,}", f"{row['output_tokens']:,}",
        ]
        for row in totals["models"]
    ]  # fmt: skip
    failed = totals["ran"] - totals["billed"]
    total = ["<b>all</b>", f"<span class=dim>{failed:,} failed, not billed</span>"]
    total += [f"<b>{totals[key]:,}</b>" for key in ("billed", "input_tokens", "output_tokens")]
    if rows:
        rows.append(total)
    heads = "model|mode|requests billed#|input tokens#|output tokens#"
    return _table(heads, rows, "Nothing was asked yet.") + (note if rows else "")


def _batches(batches: list[BatchRecord]) -> str:
    rows = []
    for batch in batches:
        shown = batch.render()
        status = str(shown["status"])
        share = 100 * batch.done / batch.total if batch.total else 0
        errors = escape("; ".join(f"{e['code']}" for e in batch.errors[:3]))
        quirks = escape(", ".join(batch.quirks))
        what = escape(f"{batch.endpoint} {batch.model or ''}")
        badge = f"<span class='s {escape(status)}'>{escape(status)}</span>"
        rows.append(
            [
                f"<code>{batch.id}</code><br><span class=dim>{what}</span>",
                f"{badge}<br><span class=dim>{errors}</span>",
                _time(batch.created_at),
                f"<div class=bar><i style='width:{share:.0f}%'></i></div>",
                f"{batch.total:,}",
                f"{batch.completed:,}",
                f"{batch.failed:,}",
                quirks,
            ]
        )
    heads = "batch|status|created|progress|requests#|done#|failed#|faults"
    return _table(heads, rows, "No batches yet.")


def _files(files: list[FileRecord]) -> str:
    rows = [
        [
            f"<code>{file.id}</code>", escape(file.filename), file.purpose, f"{file.bytes:,}",
            _time(file.created_at), "never" if file.expires_at is None else _time(file.expires_at),
        ]
        for file in files
    ]  # fmt: skip
    return _table("file|name|purpose|bytes#|created|expires", rows, "No files.")


def _faults(rules: list[dict[str, Any]]) -> str:
    hidden = {"id", "kind", "match", "seen", "hits"}
    rules = [{**rule, "probability": rule["probability"] % 1.0} for rule in rules]  # 1 is no news
    rows = [
        [
            escape(rule["kind"]),
            f"<code>{escape(rule['match'])}</code>",
            escape(", ".join(f"{k} {v}" for k, v in rule.items() if k not in hidden and v)),
            f"{rule['seen']:,}",
            f"{rule['hits']:,}",
        ]
        for rule in rules
    ]
    return _table("fault|where|how|matched#|acted#", rows, "Nothing is planned to go wrong.")


def _webhooks(hooks: Hooks) -> str:
    rows = [
        [
            escape(item["type"]),
            f"<code>{escape(item['event_id'])}</code>",
            str(item["attempts"]),
            "-" if item["status"] is None else str(item["status"] or "no answer"),
            "over" if item["next_at"] is None else _time(item["next_at"]),
        ]
        for item in hooks.deliveries(20)
    ]
    urls = ", ".join(escape(hook.url) for hook in hooks.endpoints()) or "no endpoints"
    table = _table("event|id|attempts#|last answer|next", rows, "Nothing was sent.")
    return f"<p class=dim>{urls}</p>{table}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d&nbsp;%H:%M:%S")
