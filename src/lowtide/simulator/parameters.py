"""Checks of the parameters of files and batches: the synchronous 400s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowtide.simulator.errors import (
    ApiError,
    invalid_type,
    invalid_value,
    missing,
    unknown_param,
)
from lowtide.simulator.services import Service

_LEAST_LIFE, _MOST_LIFE = 3_600, 2_592_000
_DEFAULT_BATCH_LIFE = 30 * 86_400
_CREATE = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")


@dataclass(frozen=True, slots=True)
class CreateBatch:
    """The checked body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None
    output_expires_after: int | None


def create_batch(body: Any, service: Service) -> CreateBatch:
    """Check the body of ``POST /v1/batches``.

    Raises:
        ApiError: 400 with the parameter at fault.
    """
    if not isinstance(body, Mapping):
        raise invalid_type("body", "an object", body)
    for name in _CREATE[:3]:
        if body.get(name) is None:
            raise missing(name)
        if not isinstance(body[name], str):
            raise invalid_type(name, "a string", body[name])
    _one_of("endpoint", body["endpoint"], service.endpoints)
    _one_of("completion_window", body["completion_window"], service.windows)
    for name in body:
        if name not in _CREATE:
            raise unknown_param(str(name))
    return CreateBatch(
        body["input_file_id"],
        body["endpoint"],
        body["completion_window"],
        _metadata(body.get("metadata")),
        _output_life(body.get("output_expires_after")),
    )


def upload_life(purpose: str, fields: Mapping[str, str], service: Service) -> int | None:
    """Seconds that an upload lives, None for ever.

    Raises:
        ApiError: 400 for a bad ``expires_after``.
    """
    anchor = fields.get("expires_after[anchor]")
    seconds = fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return _DEFAULT_BATCH_LIFE if purpose == service.batch_purpose else None
    if anchor is None or seconds is None:
        raise missing(f"expires_after[{'anchor' if anchor is None else 'seconds'}]")
    if not seconds.isascii() or not seconds.isdigit():
        raise invalid_type("expires_after[seconds]", "an integer", seconds)
    return _life("expires_after", anchor, int(seconds), service.least_life)


def check_upload(
    fields: Mapping[str, str], filename: str, size: int, head: bytes, service: Service
) -> str:
    """Check an upload's fields and the beginning of its content; returns its purpose.

    Raises:
        ApiError: 400 with the parameter at fault.
    """
    for name in fields:
        known = name in ("purpose", *service.upload_fields)
        if not known and not name.startswith("expires_after"):
            raise unknown_param(name)
    for name in service.upload_fields:
        if not fields.get(name):
            raise missing(name)
    purpose = fields.get("purpose")
    if not purpose:
        raise missing("purpose")
    _one_of("purpose", purpose, service.purposes)
    if size == 0:
        raise ApiError(400, "File is empty.", param="file", code="empty_file")
    if purpose == service.batch_purpose:
        if not filename.lower().endswith(".jsonl"):
            message = "Invalid file format for Batch API. Must be .jsonl"
            raise ApiError(400, message, param="file")
        if b"\x00" in head:
            message = "Invalid file format for Batch API. The file is not UTF-8 text."
            raise ApiError(400, message, param="file", code="invalid_jsonl")
    return purpose


def page_limit(text: str | None, default: int, most: int) -> int:
    """Read the query parameter ``limit``.

    Raises:
        ApiError: 400 when it is no number, or outside 1 to ``most``.
    """
    if text is None:
        return default
    try:
        limit = int(text)
    except ValueError:
        raise invalid_type("limit", "an integer", text) from None
    if limit < 1 or limit > most:
        bound = f">= 1, but got {limit}" if limit < 1 else f"<= {most}, but got {limit}"
        code = "integer_below_min_value" if limit < 1 else "integer_above_max_value"
        message = f"Invalid 'limit': integer {'below minimum' if limit < 1 else 'above maximum'}"
        raise ApiError(
            400, f"{message} value. Expected a value {bound} instead.", param="limit", code=code
        )
    return limit


def order_of(text: str | None) -> str:
    """Read the query parameter ``order``.

    Raises:
        ApiError: 400 when it is neither ``asc`` nor ``desc``.
    """
    order = text or "desc"
    _one_of("order", order, ("asc", "desc"))
    return order


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        shown = ", ".join(f"'{item}'" for item in allowed[:-1])
        listed = f"{shown}, and '{allowed[-1]}'" if shown else f"'{allowed[0]}'"
        raise invalid_value(name, f"Invalid value: '{value}'. Supported values are: {listed}.")


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise invalid_type("metadata", "an object", given)
    if len(given) > 16:
        message = f"Invalid 'metadata': too many properties. At most 16, but got {len(given)}."
        raise invalid_value("metadata", message)
    for key, value in given.items():
        if not isinstance(value, str):
            raise invalid_type(f"metadata.{key}", "a string", value)
        if len(key) > 64:
            raise invalid_value("metadata", "Invalid 'metadata': a key has over 64 characters.")
        if len(value) > 512:
            message = f"Invalid 'metadata.{key}': the value has over 512 characters."
            raise invalid_value(f"metadata.{key}", message)
    return dict(given)


def _output_life(given: Any) -> int | None:
    if given is None:
        return None
    name = "output_expires_after"
    if not isinstance(given, Mapping):
        raise invalid_type(name, "an object", given)
    for part in ("anchor", "seconds"):
        if given.get(part) is None:
            raise missing(f"{name}.{part}")
    seconds = given["seconds"]
    if isinstance(seconds, float) and seconds.is_integer():
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise invalid_type(f"{name}.seconds", "an integer", seconds)
    return _life(name, given["anchor"], seconds)


def _life(name: str, anchor: Any, seconds: int, least: int = _LEAST_LIFE) -> int:
    if not isinstance(anchor, str):
        raise invalid_type(f"{name}.anchor", "a string", anchor)
    _one_of(f"{name}.anchor", anchor, ("created_at",))
    if not least <= seconds <= _MOST_LIFE:
        message = f"Invalid '{name}.seconds': {least} to {_MOST_LIFE} are allowed."
        raise invalid_value(f"{name}.seconds", message)
    return seconds
