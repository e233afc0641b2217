"""Parses and formats sizes and times; imports nothing heavy, because the command uses it."""

from __future__ import annotations

import math
import re

from ostler.errors import InvalidInput
from ostler.time_text import format_seconds

__all__ = ["SECONDS_MAX", "SIZE_MAX", "format_seconds", "format_size", "parse_seconds", "parse_size"]

SIZE_MAX = 2**63 - 1
"""The largest size in bytes: the limit of SQLite, msgpack and the kernel."""
SECONDS_MAX = 100 * 365.25 * 86400
"""The longest time span in seconds: a century, which threads and the kernel can wait for."""
_SIZE_BEYOND = 2.0**80
"""The limit of sizes that are shown. The value of a server may be infinite, or not a number."""
_EXACT = 10_000
"""From this number on a value of a unit is rounded."""

_BINARY_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
_DECIMAL_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}
_SIZE_UNITS = {name.lower(): factor for name, factor in {"B": 1, **_DECIMAL_UNITS, **_BINARY_UNITS}.items()} | {"": 1}
_TIME_UNITS = {
    "us": 1e-6, "ms": 1e-3,
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip
_MAX_TEXT_LENGTH = 100
_SIZE_PATTERN = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_TIME_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")
_SIZE_HINT = 'write whole bytes (10737418240) or a number with a unit ("10GiB", "500MB")'
_TIME_HINT = 'write seconds (30) or a number with a unit ("30s", "5min", "2h", "1h30min")'


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `10GiB` (powers of 1024), `500MB` (powers of 1000) or `4096`.

    Args:
        text: The size; case and spaces around the unit do not matter.

    Raises:
        InvalidInput: It is not a valid size, below zero, not a whole number of bytes, or above 2^63 - 1.
    """
    text = _truncate(text)
    match = _SIZE_PATTERN.fullmatch(text.strip())
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise InvalidInput(f'"{text}" is not a valid size', hint=_SIZE_HINT, value=text)
    size = _scale_number(match[1], factor)
    if size is None:
        raise InvalidInput(f'"{text}" is not a whole number of bytes', hint=_SIZE_HINT, value=text)
    if not 0 <= size <= SIZE_MAX:
        what = "below zero" if size < 0 else "too large"
        raise InvalidInput(f'"{text}" is {what}', hint=_SIZE_HINT, value=text)
    return size


def _truncate(text: str) -> str:
    """Return a text cut to a length that can be shown and parsed; longer texts are not valid anyway."""
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[:_MAX_TEXT_LENGTH]}…"


def _scale_number(number: str, factor: int) -> int | None:
    # Integer arithmetic: a float would lose bytes of a large size.
    whole, _, part = number.partition(".")
    if not part:
        return int(whole) * factor
    total, rest = divmod(abs(int(whole + part)) * factor, 10 ** len(part))
    return None if rest else -total if number.startswith("-") else total


def format_size(size: float) -> str:
    """Format bytes: exactly if that is short (`10GiB`, `500MB`), else rounded to a tenth (`1.5GiB`).

    A rounded text has a decimal point; a text without one can be parsed to the same value. `-` for invalid values.
    """
    if not abs(size) < _SIZE_BEYOND:
        return "-"
    if size < 0:
        return f"-{format_size(-size)}"
    for units in (_BINARY_UNITS, _DECIMAL_UNITS):
        for name, factor in reversed(units.items()):
            count, rest = divmod(size, factor)
            if not rest and 0 < count < _EXACT:
                return f"{count:.0f}{name}"
    if size < 1024:
        return f"{size:.0f}B"
    name, factor = next(
        ((name, factor) for name, factor in _BINARY_UNITS.items() if size < 1023.95 * factor), ("EiB", 2**60)
    )
    return f"{size / factor:.1f}{name}"


def parse_seconds(text: str) -> float:
    """Return the seconds of a time span such as `30s`, `5min`, `2h`, `1h30min` or `30`.

    Args:
        text: The time span; units are us, ms, s, min (or m), h, d and w, and their English words.

    Raises:
        InvalidInput: It is not a valid time span.
    """
    text = _truncate(text)
    stripped = text.strip().lower()
    total, at = 0.0, 0
    while match := _TIME_PATTERN.match(stripped, at):
        factor = _TIME_UNITS.get(match[2])
        bare = not match[2] and (at > 0 or match.end() < len(stripped))  # "1h 30" is ambiguous
        if factor is None or bare:
            break
        total, at = total + float(match[1]) * factor, match.end()
    if not stripped or at < len(stripped) or not math.isfinite(total):
        raise InvalidInput(f'"{text}" is not a valid time span', hint=_TIME_HINT, value=text)
    return total
