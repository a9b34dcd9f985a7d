"""Steering a simulator over HTTP, wherever it runs: in a thread, a process, another machine."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import orjson


class Steering:
    """The admin endpoints as methods.

    Args:
        url: the simulator's URL, without ``/v1``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.base_url = f"{self.url}/v1"

    # ---- time
    def now(self) -> float:
        """The simulator's present, Unix seconds."""
        return float(self._call("GET", "/clock")["now"])

    def advance(self, duration: float | str) -> float:
        """Move the clock on, by seconds or ``"24h"``; what is due by then has happened on return.

        Returns:
            The new time, Unix seconds.
        """
        return float(self._call("POST", "/clock", {"advance": duration})["now"])

    def freeze(self) -> None:
        """Let the clock stand still: from now on only ``advance`` moves it."""
        self._call("POST", "/clock", {"frozen": True})

    def run(self) -> None:
        """Let the clock go on by itself."""
        self._call("POST", "/clock", {"frozen": False})

    def settle(self) -> None:
        """Wait until all that is due now has happened."""
        self._call("POST", "/clock", {})

    def turnaround(self, **phases: float | str) -> None:
        """How long the phases of *new* batches take.

        Args:
            phases: ``validating``, ``working``, ``finalizing``, ``cancelling``: seconds, ``"2h"``,
                ``"uniform:1h,5h"``, ``"lognormal:30m,0.8"``.
        """
        self._call("POST", "/turnaround", phases)

    # ---- faults
    def add_fault(self, kind: str, **params: Any) -> str:
        """Plan a fault, see ``lowtide.simulator.faults``; returns the rule's id.

        Raises:
            ValueError: when the simulator refuses it.
        """
        return str(self._call("POST", "/faults", {"kind": kind, **params})["faults"][0]["id"])

    def faults(self) -> list[dict[str, Any]]:
        """All rules, with how often each matched (``seen``) and acted (``hits``)."""
        return list(self._call("GET", "/faults")["faults"])

    def clear_faults(self) -> None:
        """Plan nothing any more; batches that are on their way keep what was drawn for them."""
        self._call("DELETE", "/faults")

    # ---- what was paid
    def totals(self) -> dict[str, Any]:
        """What was run and billed in all, see ``lowtide.simulator.report``."""
        return dict(self._call("GET", "/report?requests=false")["totals"])

    def requests(self, min_ran: int = 1) -> list[dict[str, Any]]:
        """For every custom_id and body hash how often it ran, was billed, and in which batches."""
        return list(self._call("GET", f"/report?min_ran={min_ran}")["requests"])

    # ---- webhooks
    def add_webhook(
        self, url: str, events: Sequence[str] = (), secret: str | None = None
    ) -> dict[str, Any]:
        """Add an endpoint; the answer has its ``id`` and ``secret``. No events: all of them."""
        wish = {"url": url, "events": list(events), "secret": secret}
        return dict(self._call("POST", "/webhooks", wish))

    def deliveries(self) -> list[dict[str, Any]]:
        """What was sent to endpoints, the latest first."""
        return list(self._call("GET", "/webhooks/deliveries")["deliveries"])

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the URL is the simulator's own
            f"{self.url}/simulator{path}",
            method=method,
            data=None if body is None else orjson.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(orjson.loads(error.read())["error"]["message"]) from error
