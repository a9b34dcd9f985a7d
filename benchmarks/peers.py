"""The wall time of 5,000 calls of one process, against what others offer for the same.

Each peer lives in a virtual environment of its own, `.lowtide/peers/<name>` or
`$BENCH_PEERS/<name>`; one that is not there is made with pip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import Stack, stack
from benchmarks.texts import texts

_ROOT = Path(__file__).parents[1]
_PEERS = {
    "autobatcher": ["autobatcher==0.12.0"],
    "inspect_ai": ["inspect_ai==0.3.285", "openai==3.54.0"],
    "pydantic_ai": ["pydantic-ai-slim[openai]==2.68.0"],
}
_CALLS, _SIZE = 5_000, 300
# As for the peers: a batch of all calls is sent at once, and looked at every 0.2 s.
_SETTINGS = {"BENCH_WAIT": "500ms", "BENCH_POLL": "200ms", "BENCH_TICK": "50ms"}
_PATIENCE = 600.0


def run(options: Options) -> Iterator[Figure]:
    """Everybody against the same server, which takes 1 s for a batch; a fresh process each time."""
    count = options.scaled(_CALLS)
    # ASCII: one of them reads answers with `splitlines`, which cuts them at U+2028 and its like.
    prompts = [
        " ".join(text.encode("ascii", "ignore").decode().split()) for text in texts(count, _SIZE)
    ]
    took: dict[str, list[float]] = {name: [] for name in ("lowtide", *_PEERS)}
    homes = {name: _environment(name) for name in _PEERS}
    os.environ |= {**_SETTINGS, "BENCH_REQUESTS": str(count)}
    with stack(flags=("--delay", "1s")) as running:
        path = running.folder / "prompts.txt"
        path.write_text("\n".join(prompts))
        for number in range(2):
            running.worker(f"batch{number}", "benchmarks.batch_app:app")
        _ours(prompts[:100])
        for _ in range(options.long_rounds):
            took["lowtide"].append(_ours(prompts))
            for name, home in homes.items():
                took[name].append(_theirs(running, name, home, path, count))
    for name in (*_SETTINGS, "BENCH_REQUESTS"):
        del os.environ[name]
    fastest = min(_PEERS, key=lambda name: min(took[name]))
    for name in _PEERS:
        yield Figure(
            f"{count:,} calls, server delay 1 s, wall time",
            name,
            1.0 if name == fastest else None,
            took["lowtide"],
            took[name],
            unit="s",
            note="lowtide by `delay_many` with two workers; the peers in one process"
            + (", the fastest" if name == fastest else ""),
        )


def _ours(prompts: list[str]) -> float:
    from benchmarks.batch_app import app
    from tasks.summarize import summarize

    app.finalize()
    start = time.monotonic()
    answers = summarize.delay_many(prompts).get(timeout=_PATIENCE)
    seconds = time.monotonic() - start
    if not all(answers):
        raise SystemExit("lowtide: answers are missing")
    return seconds


def _theirs(running: Stack, name: str, python: Path, prompts: Path, count: int) -> float:
    command = [str(python), str(Path(__file__).with_name("peer_clients.py")), name, str(prompts)]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=running.folder,
        timeout=_PATIENCE,
    )
    if ran.returncode:
        raise SystemExit(f"{name} failed:\n{ran.stderr[-2000:]}")
    answers, seconds = ran.stdout.split()[-2:]
    if int(answers) != count:
        raise SystemExit(f"{name} answered {answers} of {count}")
    return float(seconds)


def _environment(name: str) -> Path:
    home = Path(os.environ.get("BENCH_PEERS", _ROOT / ".lowtide" / "peers")) / name
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *_PEERS[name]]
        subprocess.run(pip, check=True)
    return python
