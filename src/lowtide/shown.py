"""Values as people may see them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from lowtide.durations import write_duration


def without_password(url: str) -> str:
    """A URL with its password replaced by stars."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}:***@{host}"))


def duration(seconds: float) -> str:
    """Such as "8 s", "12 min", "3.5 h" or "2.1 d"."""
    for limit, unit, digits, size in ((100, "s", 0, 1), (6_000, "min", 0, 60), (2e5, "h", 1, 3600)):
        if seconds < limit:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} d"


def dollars(amount: float) -> str:
    """US dollars, with enough digits for small sums."""
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount == 0 or abs(amount) >= 0.001 else f"${amount:.6f}"


def size(count: int) -> str:
    """Bytes, such as "512 bytes", "4.2 kB" or "97.3 MB" (powers of 1,000)."""
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def setting(name: str, value: Any) -> str:
    """A setting's value, without what is secret in it.

    Args:
        name: The setting's field, such as "max_wait".
        value: As `Settings` holds it.
    """
    from lowtide.settings import Settings

    if value is None or value in ({}, ""):
        return "-"
    if name.endswith(("_url", "_backend")):
        return without_password(str(value))
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    # Sums of money may be left out, durations not.
    if Settings.model_fields[name].annotation is float:
        return write_duration(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
