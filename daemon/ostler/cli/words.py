"""Times and values as people read them; imports nothing heavy. Sizes and time spans: `ostler.config.units`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum

from ostler.config.units import format_seconds
from ostler.printable import printable as escaped

_LONGEST = 1e11
"""Seconds beyond which a time is none: three thousand years. What a server says may be infinite, or no number."""
_DEEPEST = 64
"""So many lists and tables within each other are shown; a terminal could not show more anyway."""


def age_at(moment: float, now: float) -> str:
    """Return how long a wall time is ago (`5min 3s`), or is to come (`in 30s`); `-` for 0, which means never.

    Args:
        moment: Seconds since 1970.
        now: The wall time to judge by.
    """
    if not moment:
        return "-"
    distance = now - moment
    return format_seconds(distance, units=2) if distance >= 0 else f"in {format_seconds(-distance, units=2)}"


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
