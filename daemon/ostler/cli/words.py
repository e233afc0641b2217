"""Sizes, times and values as people read them; imports nothing heavy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum

from ostler.printable import printable as escaped

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LONGEST = 1e11
"""Seconds beyond which a time is none: three thousand years. What a server says may be infinite, or no number."""
_DEEPEST = 64
"""So many lists and tables within each other are shown; a terminal could not show more anyway."""


def human_size(size: float) -> str:
    """Return bytes with at most one decimal, in powers of 1024: `512B`, `10GiB`, `1.5GiB`."""
    if not abs(size) < 2**80:
        return "-"
    if abs(size) < 1024:
        return f"{size:.0f}B"
    value = float(size)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.1f}".removesuffix(".0") + unit
    raise AssertionError("the last unit takes everything")


def human_duration(seconds: float) -> str:
    """Return a time span in its two largest units: `200ms`, `45s`, `5min 3s`, `3d 4h`; `-` for one beyond all sense."""
    if not abs(seconds) < _LONGEST:
        return "-"
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, factor)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count}{unit}" for count, unit in parts[:2] if count)


def age_at(moment: float, now: float) -> str:
    """Return how long a wall time is ago (`5min 3s`), or is to come (`in 30s`); `-` for 0, which means never.

    Args:
        moment: Seconds since 1970.
        now: The wall time to judge by.
    """
    if not moment:
        return "-"
    distance = now - moment
    return human_duration(distance) if distance >= 0 else f"in {human_duration(-distance)}"


def human_time(moment: float) -> str:
    """Return a wall time in the local zone, to the second: `2027-01-15 09:00:00`; `-` for 0, which means never."""
    sensible = moment and abs(moment) < _LONGEST
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if sensible else "-"


def text_of(value: object, deepest: int = _DEEPEST) -> str:
    """Return any value as one line: `yes` and `no`, `-` for nothing, lists with commas, all of it `printable`."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or (isinstance(value, str | list | tuple | dict) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _text(value, deepest)


def _text(value: object, deepest: int) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if not deepest and isinstance(value, Mapping | list | tuple | set | frozenset):
        return "…"
    if isinstance(value, Mapping):
        pairs = ((text_of(key), text_of(item, deepest - 1)) for key, item in value.items())
        return ", ".join(f"{key}={item}" for key, item in pairs)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(text_of(item, deepest - 1) for item in value)
    return printable(str(value))


def printable(text: str, limit: int = 0) -> str:
    r"""Return a text as one line that leaves a terminal alone: tabs become spaces, what else is not shown `\n`, `\x1b`.

    Args:
        text: What somebody else wrote: a name, a reason, a result.
        limit: The most characters that are kept; 0 for all.
    """
    if text.isascii() and text.isprintable() and not limit:
        return text
    return escaped(text.replace("\t", " "), limit)


def printed_width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(1 for char in text if unicodedata.east_asian_width(char) in "WF")
    return len(text) + wide - sum(1 for char in text if unicodedata.combining(char))
