"""Text from elsewhere on its way to a terminal, a log or JSON: nothing in it acts, hides or reorders what is shown.

Names, errors, results, log messages and the texts of plugins were written by others. Control characters (C0, DEL, C1),
line and paragraph separators, what changes the direction of writing, what cannot be seen (zero-width characters, tags,
fillers) and halves of surrogate pairs are shown as escapes. Everything that is shown or logged goes through this module
and no other.
"""

from __future__ import annotations

import re
from functools import cache

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_INVISIBLE = (
    "\u00ad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Not the Arabic signs U+0600 to U+0605 and their like: format characters by category, but they can be seen.
_SURROGATES = "\ud800-\udfff"
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


@cache
def _unsafe_pattern(kept: str = "") -> re.Pattern[str]:
    """Return the expression of what is not shown as it is; `kept` holds characters that are."""
    # Compiled with the first text that is not plain ASCII: most runs of the command meet none.
    keep = f"(?![{re.escape(kept)}])" if kept else ""
    return re.compile(f"{keep}[{_CONTROLS}{_INVISIBLE}{_SURROGATES}]")


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if char in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str, limit: int = 0) -> str:
    r"""Return a text as one line that can be shown anywhere: `\n`, `\x1b`, `\u202e` for what is not shown itself.

    Args:
        text: Anything.
        limit: The most characters that are kept; 0 for all. What is cut off is said.
    """
    text = truncate_with_length(text, limit)
    return text if text.isascii() and text.isprintable() else _unsafe_pattern().sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return a text of several lines as `printable` does; its line feeds and tabs stay as they are."""
    return text if text.isascii() and text.isprintable() else _unsafe_pattern("\n\t").sub(_escape, text)


def text_width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # only for a text that is not ASCII

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def truncate_with_length(text: str, limit: int) -> str:
    """Return a text that has at most `limit` characters (0 for no limit), and else says how many it had."""
    return text if not limit or len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


@cache
def _unsafe_or_wide_pattern() -> re.Pattern[str]:
    return re.compile("[^\x00-\x7e]")


def printable_json(text: str, *, ascii_only: bool = False) -> str:
    r"""Return a JSON document with the same meaning, in which what is not shown itself is escaped (`\u009b`).

    Args:
        text: A JSON document; outside of its strings there is nothing that would be escaped.
        ascii_only: Whether every character above ASCII is escaped: for a stream that cannot write them.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return (_unsafe_or_wide_pattern() if ascii_only else _unsafe_pattern("\n\t")).sub(_escape_json, text)


def _escape_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"
