"""The plan of faults: rules that say what goes wrong, where, how often. Seeded, and kept on disk.

A rule is a flat table, the same in TOML, in JSON and on the command line::

    kind = "rate_limit"            # one of fault_kinds.KINDS
    match = "POST /v1/batches$"    # regular expression, see below
    count = 2                      # at most so many times (default: no end)
    probability = 0.5              # of those that match (default: 1)
    skip = 3                       # let the first three that match pass
    retry_after = 5                # what the kind can be told

``match`` is searched in ``METHOD /path`` for http kinds, in ``endpoint metadata-as-JSON`` for batch
kinds, in the custom_id for line kinds, in the event type for webhook kinds.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from lowtide.simulator.errors import ApiError, billing_limit, rate_limited, server_error
from lowtide.simulator.fault_kinds import KINDS
from lowtide.simulator.store import Store
from lowtide.simulator.turnaround import seconds
from lowtide.simulator.unfit import KINDS as UNFIT
from lowtide.simulator.unfit import spoil

_META = "faults"
_COMMON = ("kind", "match", "count", "probability", "skip", "id")
_DURATIONS = frozenset({"retry_after", "delay", "seconds", "after"})


@dataclass(slots=True)
class Rule:
    """One rule with its counters: ``seen`` matched, ``hits`` acted."""

    id: str
    kind: str
    match: str
    count: int | None
    probability: float
    skip: int
    params: dict[str, Any]
    seen: int = 0
    hits: int = 0
    expression: re.Pattern[str] = field(default=re.compile(""), repr=False)

    @property
    def scope(self) -> str:
        """Where the rule acts; a billing limit has three places."""
        if self.kind == "billing_limit":
            return {"create": "http", "line": "line"}.get(self.params["where"], "batch")
        return KINDS[self.kind].scope

    def render(self) -> dict[str, Any]:
        """The rule as a flat table, with its counters."""
        return {
            "id": self.id,
            "kind": self.kind,
            "match": self.match,
            "count": self.count,
            "probability": self.probability,
            "skip": self.skip,
            **self.params,
            "seen": self.seen,
            "hits": self.hits,
        }


def make_rule(table: Mapping[str, Any], rule_id: str) -> Rule:
    """Read a rule.

    Raises:
        ValueError: for an unknown kind or key (with the nearest right one), or a bad value.
    """
    name = str(table.get("kind", ""))
    if name not in KINDS:
        raise ValueError(f"unknown kind of fault {name!r}{_hint(name, KINDS)}")
    kind = KINDS[name]
    params = dict(kind.params)
    for key, value in table.items():
        if key in _COMMON:
            continue
        if key not in params:
            raise ValueError(f"{name} has no {key!r}{_hint(key, [*_COMMON, *params])}")
        params[key] = seconds(value) if key in _DURATIONS and value is not None else value
    default = kind.match
    if name == "billing_limit" and params["where"] == "create":
        default = KINDS["insufficient_quota"].match
    match = str(table.get("match", default))
    count = table.get("count")
    try:
        return Rule(
            str(table.get("id", rule_id)), name, match, None if count is None else int(count),
            float(table.get("probability", 1.0)), int(table.get("skip", 0)), params,
            expression=re.compile(match),
        )  # fmt: skip
    except re.error as error:
        raise ValueError(f"{match!r} is no regular expression: {error}") from error


def parse_flag(text: str) -> dict[str, Any]:
    """Read a rule from the command line: ``rate_limit match='POST /v1/batches$' count=2``.

    Raises:
        ValueError: when a part is not ``key=value``.
    """
    kind, *rest = shlex.split(text) or [""]
    table: dict[str, Any] = {"kind": kind}
    for part in rest:
        key, sep, value = part.partition("=")
        if not sep:
            raise ValueError(f"key=value expected: {part!r}")
        table[key] = int(value) if re.fullmatch(r"-?\d+", value) else _float_or_text(value)
    return table


class Faults:
    """The plan. Thread-safe.

    Args:
        store: keeps rules and counters over a restart.
        seed: of the draws; the n-th draw of a rule is always the same.
        configured: rules from settings, they come back at each start with their counters.
    """

    def __init__(self, store: Store, seed: int, configured: Iterable[Mapping[str, Any]]) -> None:
        self._store = store
        self._seed = seed
        self._lock = threading.Lock()
        self._dirty = False
        self._rules = [make_rule(table, f"config-{i}") for i, table in enumerate(configured)]
        self._scoped: dict[str, list[Rule]] = {}
        self._restore(store.get_meta(_META) or [])
        self._sort()

    # ---- the plan
    def rules(self) -> list[dict[str, Any]]:
        """All rules, in the order in which they are tried."""
        with self._lock:
            return [rule.render() for rule in self._rules]

    def add(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Add a rule behind the others.

        Raises:
            ValueError: when it is wrong.
        """
        rule = make_rule(table, f"rule-{secrets.token_hex(4)}")
        with self._lock:
            self._rules.append(rule)
            self._sort()
        self.keep()
        return rule.render()

    def remove(self, rule_id: str | None = None) -> int:
        """Take one rule away, or all; returns how many are gone."""
        with self._lock:
            before = len(self._rules)
            self._rules = [r for r in self._rules if rule_id is not None and r.id != rule_id]
            self._sort()
            gone = before - len(self._rules)
        self.keep()
        return gone

    def keep(self) -> None:
        """Write the plan down, when it has changed."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
            rules = [rule.render() for rule in self._rules]
        self._store.set_meta(_META, rules)

    # ---- what happens
    def http(self, method: str, path: str) -> Rule | None:
        """The rule that acts on a request, if one does; the first that fits."""
        rule = next(self._acting("http", f"{method} {path}"), None)
        if rule:
            self.keep()
        return rule

    def batch(self, subject: str) -> dict[str, Any]:
        """All that goes wrong with a new batch, as its quirks."""
        quirks: dict[str, Any] = {}
        for rule in self._acting("batch", subject):
            quirks.update(_quirks(rule))
        self.keep()
        return quirks

    def webhook(self, event: str) -> list[Rule]:
        """The rules that act on an event."""
        return list(self._acting("webhook", event))

    def refuse(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The failure of a line, if it fails."""
        del body
        for rule in self._acting("line", custom_id, ("line_error", "billing_limit")):
            return _line_failure(rule)
        return None

    def mangle(self, custom_id: str, line: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines that are written for one answer."""
        lines = [line]
        for rule in self._acting("line", custom_id, _MANGLING):
            if rule.kind == "line_missing":
                lines = []
            elif rule.kind == "line_duplicate":
                lines = lines * 2
            elif rule.kind == "line_unknown_id":
                lines = [*lines, {**line, "custom_id": f"unknown-{secrets.token_hex(8)}"}]
            elif rule.kind in UNFIT:
                spoil(rule.kind, line)
            else:
                _separate(line)
        return lines

    def _acting(
        self, scope: str, subject: str, kinds: tuple[str, ...] | None = None
    ) -> Iterator[Rule]:
        for rule in self._scoped.get(scope, ()):
            if kinds and rule.kind not in kinds:
                continue
            if rule.expression.search(subject) and self._draws(rule):
                yield rule

    def _sort(self) -> None:
        """The rules have changed; a new dictionary, since other threads read the old one."""
        self._dirty = True
        scopes = {rule.scope for rule in self._rules}
        self._scoped = {s: [rule for rule in self._rules if rule.scope == s] for s in scopes}

    def _draws(self, rule: Rule) -> bool:
        with self._lock:
            rule.seen += 1
            self._dirty = True
            if rule.seen <= rule.skip or (rule.count is not None and rule.hits >= rule.count):
                return False
            if rule.probability < 1.0:
                text = f"{self._seed}/{rule.id}/{rule.seen}".encode()
                draw = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")
                if draw / 2**48 >= rule.probability:
                    return False
            rule.hits += 1
            return True

    def _restore(self, kept: list[dict[str, Any]]) -> None:
        known = {rule.id: rule for rule in self._rules}
        for table in kept:
            counters = {key: table.pop(key) for key in ("seen", "hits")}
            rule = known.get(table["id"])
            if rule is None and not table["id"].startswith("config-"):
                rule = make_rule(table, table["id"])
                self._rules.append(rule)
            if rule is not None and rule.kind == table["kind"]:
                rule.seen, rule.hits = counters["seen"], counters["hits"]


_MANGLING = ("line_missing", "line_duplicate", "line_unknown_id", "separators", *UNFIT)


def _quirks(rule: Rule) -> dict[str, Any]:
    params = rule.params
    if rule.kind == "stuck":
        return {"stuck": params["share"], "never_expires": True}
    if rule.kind == "expire":
        return {"stuck": params["share"], "expires_after": params["after"]}
    if rule.kind == "late_expiry":
        return {"stuck": params["share"], "late_expiry": params["seconds"]}
    if rule.kind == "billing_limit":
        return {"billing_limit": True}
    return {rule.kind: params.get("seconds", params.get("status", True))}


def _line_failure(rule: Rule) -> dict[str, Any]:
    if rule.kind == "billing_limit":
        return _http_failure(billing_limit(int(rule.params["status"])))
    code, status = rule.params["code"], int(rule.params["status"])
    message = rule.params["message"]
    if code is not None:
        text = message or "This request could not be completed."
        return {"response": None, "error": {"code": code, "message": text}}
    if status == 429:
        return _http_failure(rate_limited(1))
    if status == 0:
        return {"response": {"status_code": 0, "request_id": "", "body": {}}, "error": None}
    if status >= 500:
        return _http_failure(server_error(status))
    return _http_failure(ApiError(status, message or "Invalid request.", code="invalid_request"))


def _http_failure(error: ApiError) -> dict[str, Any]:
    response = {
        "status_code": error.status,
        "request_id": secrets.token_hex(16),
        "body": error.body(),
    }
    return {"response": response, "error": None}


def _separate(value: Any) -> None:
    """Put the separators into the answer's text, at its first space (JSON text stays JSON)."""
    if isinstance(value, list):
        for item in value:
            _separate(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("content", "text") and isinstance(inner, str):
                value[key] = inner.replace(" ", " \u2028\u2029\u0085", 1)
            else:
                _separate(inner)


def _float_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _hint(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""
