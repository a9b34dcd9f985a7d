"""Structured output: from a Pydantic model to the strict JSON schema that the API enforces."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_LENGTH = 64


def response_format(output: type[BaseModel]) -> dict[str, Any]:
    """What `/v1/chat/completions` takes as `response_format` to answer with an `output`."""
    return {
        "type": "json_schema",
        "json_schema": {"name": _name(output), "strict": True, "schema": strict_schema(output)},
    }


def text_format(output: type[BaseModel]) -> dict[str, Any]:
    """What `/v1/responses` takes as `text.format` to answer with an `output`."""
    return {
        "type": "json_schema",
        "name": _name(output),
        "strict": True,
        "schema": strict_schema(output),
    }


@lru_cache(maxsize=256)
def strict_schema(output: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `output` in the API's strict form. Shared: not to be changed.

    Strict means: every object closed, every property required, no null defaults, no `$ref` beside
    other keys, `allOf` of one merged. Same result as the openai SDK's own helper, which would
    load the whole SDK into every process that only accepts calls.
    """
    schema = output.model_json_schema()
    return _strict(schema, schema)


def property_names(output: type[BaseModel]) -> frozenset[str]:
    """All field names that `output` knows, at any depth: safe to show, they are no content."""
    found: set[str] = set()
    pending: list[Any] = [strict_schema(output)]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                found.update(properties)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return frozenset(found)


def _name(output: type[BaseModel]) -> str:
    return _NAME.sub("_", output.__name__).strip("_")[:_NAME_LENGTH] or "output"


def _strict(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    for name in ("$defs", "definitions"):
        for definition in node.get(name, {}).values():
            _strict(definition, root)
    if node.get("type") == "object":
        node.setdefault("additionalProperties", False)
    if isinstance(node.get("properties"), dict):
        node["required"] = list(node["properties"])
        node["properties"] = {k: _strict(v, root) for k, v in node["properties"].items()}
    if isinstance(node.get("items"), dict):
        node["items"] = _strict(node["items"], root)
    if isinstance(node.get("anyOf"), list):
        node["anyOf"] = [_strict(variant, root) for variant in node["anyOf"]]
    _merge_all_of(node, root)
    if node.get("default", ...) is None:
        del node["default"]
    if "$ref" in node and len(node) > 1:
        return _inline(node, root)
    return node


def _merge_all_of(node: dict[str, Any], root: dict[str, Any]) -> None:
    parts = node.get("allOf")
    if not isinstance(parts, list):
        return
    if len(parts) == 1:
        del node["allOf"]
        node.update(_strict(parts[0], root))
    else:
        node["allOf"] = [_strict(part, root) for part in parts]


def _inline(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Puts the referred schema in place of a `$ref` that stands beside other keys."""
    target: Any = root
    for part in node.pop("$ref").removeprefix("#/").split("/"):
        target = target[part]
    own = dict(node)
    node.update(target)
    node.update(own)
    return _strict(node, root)
