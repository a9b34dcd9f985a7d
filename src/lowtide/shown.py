"""Values as people may see them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


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


def megabytes(size: int) -> str:
    """Bytes in MB (powers of 1,000)."""
    return f"{size / 1e6:,.1f} MB"
