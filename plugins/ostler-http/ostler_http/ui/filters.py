"""How values are written on a page: times, sizes, rates, text that somebody else has chosen.

None of them fails: a daemon of another version may not say everything, and templates pass on what there is.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from markupsafe import Markup, escape

from ostler import format_seconds, format_size

_LAST_MOMENT = 253_402_300_800.0
_DANGEROUS = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
_NONE = "\u2013"


def visible(value: Any) -> Any:
    r"""Return a value for a page with invisible characters as escapes: they could hide or reorder what is around them.

    Line breaks and tabs stay; values that are not text stay as they are.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    if value.isascii() and value.isprintable():
        return value
    return "".join(_visible_character(character) for character in value)


def _visible_character(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _DANGEROUS:
        return character
    return f"\\u{ord(character):04x}"


def moment(value: Any, *, fallback: str = _NONE) -> Markup | str:
    """Return a wall time as an element that the script turns into an age; without it the time of this host is read."""
    if not is_moment(value):
        return fallback
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    exact = datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, local, local)


def span(value: Any) -> Markup | str:
    """Return a wall time as an element that the script turns into how long something has lasted."""
    if not is_moment(value):
        return ""
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    exact = datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    return Markup('<time class="span" datetime="{}" title="{}">since {}</time>').format(exact, local, local)


def clock_time(value: Any) -> Markup | str:
    """Return a wall time to the millisecond, without its date unless one points at it: for lines of events and logs."""
    if not is_moment(value):
        return _NONE
    exact = datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds")
    local = time.localtime(value)
    text = f"{time.strftime('%H:%M:%S', local)}.{int(value * 1000) % 1000:03d}"
    return Markup('<time class="exact" datetime="{}" title="{}">{}</time>').format(
        exact, time.strftime("%Y-%m-%d %H:%M:%S %Z", local), text
    )


def is_moment(value: Any) -> TypeGuard[float]:
    """Return whether a value is a wall time that can be shown; 0 is never."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LAST_MOMENT


def seconds(value: Any) -> str:
    """Return a time span: `1h 30min`, `12ms`, `85µs`."""
    if not isinstance(value, int | float):
        return _NONE
    return f"{value * 1e6:.0f}µs" if 0 < value < 1e-3 else format_seconds(value, units=2)


def size(value: Any) -> str:
    """Return bytes: `10GiB`."""
    return format_size(value) if isinstance(value, int | float) else _NONE


def rate(value: Any) -> str:
    """Return a number per second."""
    if not isinstance(value, int | float):
        return _NONE
    return f"{value:.1f}" if 0 < value < 100 else f"{value:,.0f}"


def count(value: Any) -> str:
    """Return a whole number with separators."""
    return f"{value:,}" if isinstance(value, int) else _NONE


def plain(value: Any) -> str:
    """Return any value as one text: yes and no, lists with commas, structures as JSON."""
    if value is None or value in ("", [], {}):
        return _NONE
    if isinstance(value, Mapping | list | tuple):
        return _structure(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _structure(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    if any(isinstance(item, Mapping | list | tuple) for item in value.values()):
        return json.dumps(value, ensure_ascii=False, default=str)
    return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())


def cut(value: Any, limit: int = 2000) -> str:
    """Return a text that a page of many such texts can hold, and how much of it was left out."""
    text = value if isinstance(value, str) else plain(value)
    left = len(text) - limit
    return f"{text[:limit]}\u2026 ({left:,} more characters)" if left > 0 else text


def lines(value: Any) -> str:
    """Return a structure as indented JSON."""
    return json.dumps(value, ensure_ascii=False, default=str, indent=2)


_GOOD = {"up", "ready", "loaded", "succeeded", "done", "running", "available", "in-use", "closed", "enabled", "live"}
_BAD = {"failed", "stuck", "error", "quarantined", "lost", "refused", "hung", "critical", "down", "not undone"}
_WARN = {
    "degraded", "blocked", "failing", "slow", "open", "half open", "half_open", "warning", "warn", "gone", "undone",
    "forced down", "frozen", "disabled", "daemon", "unreachable",
}  # fmt: skip


def tone(state: Any) -> str:
    """Return how a state is shown: `good`, `warn`, `bad`, or `idle` for one that says neither."""
    text = str(state).lower()
    return "good" if text in _GOOD else "bad" if text in _BAD else "warn" if text in _WARN else "idle"


def badge(state: Any, title: str = "") -> Markup:
    """Return a state with its colour and shape; a reader hears the word alone."""
    kind = tone(state)
    hint = Markup(' title="{}"').format(visible(title)) if title else ""
    return Markup('<span class="badge {}"{}>{}</span>').format(kind, hint, visible(str(state) or _NONE))


def sparkline(values: list[float], label: str) -> Markup:
    """Return a small line of figures, oldest first; nothing for fewer than two."""
    if len(values) < 2:
        return Markup("")
    top, step = max(*values, 1e-9), 100 / (len(values) - 1)
    points = " ".join(f"{index * step:.1f},{22 - 20 * value / top:.1f}" for index, value in enumerate(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(label, points)


def paragraph(text: str) -> Markup:
    """Return a text whose commands in backticks are shown as code."""
    parts = str(visible(text)).split("`")
    if len(parts) % 2 == 0:
        return escape(visible(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )
