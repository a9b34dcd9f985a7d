"""Answers of the image and video endpoints: a real, small picture drawn from the prompt."""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from lowtide.simulator.answers.models import snapshot
from lowtide.simulator.answers.reply import number_in
from lowtide.simulator.answers.usage import Tokens, count
from lowtide.simulator.errors import invalid_type, missing

_SIDE = 32
_IMAGE_TOKENS = 272


def image(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer an image generation or edit with ``n`` PNG pictures of 32 by 32 pixels.

    Raises:
        ApiError: 400 when there is no prompt, or ``n`` is out of range.
    """
    prompt = _prompt(body)
    number_in(body, "n", 1, 10)
    n = int(body.get("n") or 1)
    tokens = Tokens(count(prompt), _IMAGE_TOKENS * n)
    return {
        "created": int(now),
        "data": [{"b64_json": base64.b64encode(png(f"{prompt}{i}")).decode()} for i in range(n)],
        "usage": {
            "input_tokens": tokens.input,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": tokens.input},
            "output_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
        },
    }, tokens


def video(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer a video request with the job that the service would have finished.

    Raises:
        ApiError: 400 when there is no prompt.
    """
    prompt = _prompt(body)
    return {
        "id": f"video_{secrets.token_hex(16)}",
        "object": "video",
        "model": snapshot(str(body["model"])),
        "status": "completed",
        "progress": 100,
        "created_at": int(now),
        "completed_at": int(now),
        "expires_at": None,
        "prompt": prompt,
        "size": str(body.get("size") or "720x1280"),
        "seconds": str(body.get("seconds") or "4"),
        "remixed_from_video_id": None,
        "error": None,
    }, Tokens(count(prompt), 0)


def png(seed: str) -> bytes:
    """A colour gradient whose corners come from the hash of ``seed``, as a PNG file."""
    digest = hashlib.blake2b(seed.encode(errors="replace"), digest_size=6).digest()
    start, end = digest[:3], digest[3:]
    rows = bytearray()
    for y in range(_SIDE):
        rows.append(0)  # no filter
        for x in range(_SIDE):
            share = (x + y) / (2 * _SIDE - 2)
            rows += bytes(round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if prompt is None:
        raise missing("prompt")
    if not isinstance(prompt, str):
        raise invalid_type("prompt", "a string", prompt)
    return prompt
