"""A text that matches a regular expression: one from the given text, or one made to fit."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

# Python's own parser of patterns; it has no public name and no types.
ops: Any = import_module("re._constants")
parser: Any = import_module("re._parser")

_CLASSES = {
    ops.CATEGORY_DIGIT: "0",
    ops.CATEGORY_WORD: "a",
    ops.CATEGORY_SPACE: " ",
    ops.CATEGORY_NOT_DIGIT: "a",
    ops.CATEGORY_NOT_WORD: "-",
    ops.CATEGORY_NOT_SPACE: "a",
}


def match(pattern: str, text: str) -> str:
    """The first word of ``text`` that matches ``pattern``, else the shortest made-up match.

    A pattern that cannot be read gives an empty text.
    """
    try:
        expression = re.compile(pattern)
        for word in text.split()[:500]:
            if expression.fullmatch(word):
                return word
        made = "".join(_make(op, arg) for op, arg in parser.parse(pattern))
    except re.error:
        return ""
    return made


def _make(op: Any, arg: Any) -> str:
    if op is ops.LITERAL:
        return chr(arg)
    if op is ops.NOT_LITERAL:
        return "a" if arg != ord("a") else "b"
    if op is ops.ANY:
        return "a"
    if op is ops.IN:
        return _from_set(arg)
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        least, _, inner = arg
        return "".join(_make(*item) for item in inner) * least
    if op is ops.SUBPATTERN:
        return "".join(_make(*item) for item in arg[-1])
    if op is ops.BRANCH:
        return "".join(_make(*item) for item in arg[1][0])
    return ""


def _from_set(items: Any) -> str:
    if items[0][0] is ops.NEGATE:
        rest = re.compile("[" + "".join(_set_source(*item) for item in items[1:]) + "]")
        return next(c for c in "a0-_ .Z" if not rest.match(c))
    kind, arg = items[0]
    if kind is ops.CATEGORY:
        return _CLASSES.get(arg, "a")
    return chr(arg if kind is ops.LITERAL else arg[0])


def _set_source(kind: Any, arg: Any) -> str:
    if kind is ops.CATEGORY:
        return {"0": r"\d", "a": r"\w", " ": r"\s"}.get(_CLASSES.get(arg, ""), "")
    if kind is ops.RANGE:
        return f"{re.escape(chr(arg[0]))}-{re.escape(chr(arg[1]))}"
    return re.escape(chr(arg))
