"""Formats times and values for people; imports nothing heavy. For sizes and time spans see `ostler.config.units`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ostler.config.units import format_seconds
from ostler.printable import printable as escaped
from ostler.time_text import format_moment

_MAX_DEPTH = 64
"""Maximum depth of nested lists and tables that is shown."""


def format_age(moment: float, now: float) -> str:
    """Return how long ago a wall time was (`5min 3s`), or how far ahead it is (`in 30s`); `-` for 0 (never).

    Args:
        moment: Seconds since 1970.
        now: The current wall time.
    """
    if not moment:
        return "-"
    distance = now - moment
    return format_seconds(distance, units=2) if distance >= 0 else f"in {format_seconds(-distance, units=2)}"


def human_time(moment: float) -> str:
    """Return a wall time in the local zone, to the second: `2027-01-15 09:00:00`; `-` for 0 (never)."""
    return format_moment(moment)


def text_of(value: object, max_depth: int = _MAX_DEPTH) -> str:
    """Return any value as one line: `yes` and `no`, `-` for none, lists with commas, all of it `printable`."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or (isinstance(value, str | list | tuple | dict) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _format_value(value, max_depth)


def _format_value(value: object, max_depth: int) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if not max_depth and isinstance(value, Mapping | list | tuple | set | frozenset):
        return "…"
    if isinstance(value, Mapping):
        pairs = ((text_of(key), text_of(item, max_depth - 1)) for key, item in value.items())
        return ", ".join(f"{key}={item}" for key, item in pairs)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(text_of(item, max_depth - 1) for item in value)
    return printable(str(value))


def printable(text: str, limit: int = 0) -> str:
    r"""Return a text as one line that is safe on a terminal: tabs become spaces, other invisible characters escapes.

    Args:
        text: An untrusted text: a name, a reason, a result.
        limit: The maximum number of characters; 0 for no limit.
    """
    if text.isascii() and text.isprintable() and not limit:
        return text
    return escaped(text.replace("\t", " "), limit)


def display_width(text: str) -> int:
    """Return the width of a text on a terminal in columns."""
    if text.isascii():
        return len(text)
    import unicodedata  # 1 MB of tables: most text is ASCII

    wide = sum(1 for char in text if unicodedata.east_asian_width(char) in "WF")
    return len(text) + wide - sum(1 for char in text if unicodedata.combining(char))
