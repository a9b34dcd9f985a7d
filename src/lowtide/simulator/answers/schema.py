"""Objects that conform to a JSON schema, filled from a text where it has the answer."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

from lowtide.simulator.answers import labels, patterns
from lowtide.simulator.answers.text import keywords, sentences, summary, title

_FORMATS = {
    "date": (r"\b\d{4}-\d\d-\d\d\b", "2024-01-01"),
    "date-time": (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)", "2024-01-01T00:00:00Z"),
    "time": (r"\b\d\d:\d\d:\d\dZ", "12:00:00Z"),
    "duration": (r"\bP\d+D\b", "P1D"),
    "email": (r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w\b", "nobody@example.com"),
    "uri": (r"\bhttps?://[^\s<>\"')\]]+\b", "https://example.com/"),
    "url": (r"\bhttps?://[^\s<>\"')\]]+\b", "https://example.com/"),
    "hostname": (r"\b[a-z0-9-]+\.[a-z]{2,}\b", "example.com"),
    "ipv4": (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", "127.0.0.1"),
    "ipv6": (r"(?!)", "::1"),
}
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_MAX_DEPTH = 8


class SchemaWalker:
    """Makes values for one schema from one text.

    Args:
        root: the whole schema, to which ``$ref`` points.
        text: where content is taken from.
    """

    def __init__(self, root: Mapping[str, Any], text: str) -> None:
        self._root = root
        self._text = text

    def value(self, schema: Any, name: str = "", depth: int = 0) -> Any:
        """A value that ``schema`` accepts; ``name`` is the property it is for."""
        if not isinstance(schema, Mapping):
            return title(self._text)
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._of_enum(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(self._branch(schema[key], depth), name, depth + 1)
        makers = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
            "null": lambda *_: None,
        }
        return makers[_type_of(schema)](schema, name, depth)

    def _resolved(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                rest = {k: v for k, v in schema.items() if k != "$ref"}
                schema = {**self._target(str(schema["$ref"])), **rest}
            elif schema.get("allOf"):
                schema = _merged(schema, [self._resolved(s, depth + 1) for s in schema["allOf"]])
            else:
                break
        return schema

    def _target(self, ref: str) -> Mapping[str, Any]:
        node: Any = self._root
        for part in ref.removeprefix("#").strip("/").split("/"):
            if part:
                node = node.get(part, {}) if isinstance(node, Mapping) else {}
        return node if isinstance(node, Mapping) else {}

    def _branch(self, branches: list[Any], depth: int) -> Any:
        # Deep inside a recursive schema the way out is the branch that ends it.
        nulls = [b for b in branches if isinstance(b, Mapping) and b.get("type") == "null"]
        if nulls and depth > _MAX_DEPTH // 2:
            return nulls[0]
        return next((b for b in branches if b not in nulls), branches[0])

    def _of_enum(self, allowed: list[Any]) -> Any:
        texts = [item for item in allowed if isinstance(item, str)]
        return labels.pick(texts, self._text) if texts else allowed[0]

    def _object(self, schema: Mapping[str, Any], name: str, depth: int) -> dict[str, Any]:
        del name
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        chosen = properties if depth < _MAX_DEPTH else {k: properties.get(k) for k in required}
        made = {key: self.value(inner, key, depth + 1) for key, inner in chosen.items()}
        for key in required:
            if key not in made:
                made[key] = title(self._text)
        return made

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", max(least, 3)))
        if "prefixItems" in schema:
            return [self.value(inner, name, depth + 1) for inner in schema["prefixItems"]]
        items = schema.get("items", {"type": "string"})
        if depth >= _MAX_DEPTH and least == 0:
            return []
        inner = self._resolved(items, depth) if isinstance(items, Mapping) else {}
        if inner.get("type") == "string" and not {"enum", "const", "format", "pattern"} & set(
            inner
        ):
            made: list[Any] = [_fit(w, inner) for w in self._strings(name, max(least, most))]
        elif "enum" in inner:
            best = self.value(inner, name, depth + 1)
            made = [best, *(x for x in inner["enum"] if x != best)][: max(1, least)]
        else:
            made = [self.value(inner, name, depth + 1)]
        while len(made) < least:
            made.append(self.value(inner, f"{name}{len(made)}", depth + 1))
        return made[:most]

    def _strings(self, name: str, count: int) -> list[str]:
        if any(stem in name.lower() for stem in ("point", "sentence", "step", "fact", "finding")):
            return sentences(self._text)[:count]
        return keywords(self._text, count)

    def _string(self, schema: Mapping[str, Any], name: str, depth: int) -> str:
        del depth
        form = str(schema.get("format", ""))
        low = name.lower()
        if not form:
            form = next((f for f in ("email", "uri", "url") if f in low), "")
        if form in _FORMATS:
            pattern, default = _FORMATS[form]
            found = re.search(pattern, self._text)
            return found[0] if found else default
        if form == "uuid":
            digest = hashlib.blake2b((self._text + name).encode(errors="replace"), digest_size=16)
            raw = digest.hexdigest()
            return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-8{raw[17:20]}-{raw[20:]}"
        if "pattern" in schema:
            return patterns.match(str(schema["pattern"]), self._text)
        return _fit(self._named(low), schema)

    def _named(self, name: str) -> str:
        label = re.escape(name).replace("_", "[ _-]")
        found = re.search(rf"\b{label}\b\s*(?:[:=]|is)\s*([^\n]+)", self._text, re.IGNORECASE)
        if name and found:
            return found[1].strip().rstrip(".,;")
        if any(stem in name for stem in ("summar", "descri", "abstract", "reason", "explan")):
            return summary(self._text, 40)
        if any(stem in name for stem in ("keyword", "topic", "tag", "category")):
            return next(iter(keywords(self._text, 1)), "")
        if any(stem in name for stem in ("title", "subject", "name", "head")):
            return title(self._text)
        return summary(self._text, 25)

    def _integer(self, schema: Mapping[str, Any], name: str, depth: int) -> int:
        return math.floor(self._number({"multipleOf": 1, **schema}, name, depth))

    def _number(self, schema: Mapping[str, Any], name: str, depth: int) -> float:
        del depth
        near = re.search(
            rf"{re.escape(name)}\D{{0,20}}({_NUMBER.pattern})", self._text, re.IGNORECASE
        )
        found = near[1] if name and near else next(iter(_NUMBER.findall(self._text)), "0")
        return _into_range(float(found.replace(",", ".")), schema)

    def _boolean(self, schema: Mapping[str, Any], name: str, depth: int) -> bool:
        del schema, depth
        low = self._text.lower()
        stem = re.sub(r"^(is|has|was|are|contains)_", "", name.lower())[:6]
        return bool(stem) and stem in low and f"not {stem}" not in low


def conforming(schema: Mapping[str, Any], text: str) -> Any:
    """A value that conforms to a JSON schema (draft 2020-12, as structured outputs use it).

    Args:
        schema: the schema; ``$ref`` into itself is followed, recursion ends at a depth of 8.
        text: where names, numbers, dates, labels and sentences are taken from.
    """
    return SchemaWalker(schema, text).value(schema)


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if isinstance(kind, str):
        return kind if kind in _TYPES else "string"
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


def _merged(schema: Mapping[str, Any], parts: list[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in [*parts, {k: v for k, v in schema.items() if k != "allOf"}]:
        for key, value in part.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged


def _fit(text: str, schema: Mapping[str, Any]) -> str:
    least = int(schema.get("minLength", 0))
    text = text[: int(schema.get("maxLength", len(text)))]
    return text + "-" * (least - len(text))


def _into_range(value: float, schema: Mapping[str, Any]) -> float:
    step = float(schema.get("multipleOf", 0))
    low = float(schema.get("minimum", -math.inf))
    high = float(schema.get("maximum", math.inf))
    gap = step or 1e-6
    low = max(low, float(schema.get("exclusiveMinimum", -math.inf)) + gap)
    high = min(high, float(schema.get("exclusiveMaximum", math.inf)) - gap)
    if not low <= value <= high:
        value = low if math.isfinite(low) else high
    if step:
        below = math.floor(value / step) * step
        value = below if below >= low else math.ceil(low / step) * step
    return value
