"""Undoing escapes in a text: percent-encoding, HTML references, and the backslashes of JSON, Python and shells.

A text is decoded in rounds, each of which undoes one level of each kind. Backslashes are dropped, however many there
are: what was escaped in JSON twice reads the same as what was escaped once. So of an escaped line break the letter n is
left; what is left of a secret after the same rounds is looked for as well.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator

MAX_ROUNDS = 6
Span = tuple[int, int]
_Decode = Callable[[re.Match[str]], str]

_PERCENT_PATTERN = re.compile(r"%[0-9A-Fa-f]{2}")
_HTML_PATTERN = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9A-Fa-f]{1,6}|amp|lt|gt|quot|apos);")
_BACKSLASH_CODE_PATTERN = re.compile(r"\\+(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_SHELL_PATTERN = re.compile(r"""'(?:\\+'|"'")'""")
_BACKSLASHES_PATTERN = re.compile(r"\\+")
_HTML_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_PERCENT_BYTES = {f"%{high}{low}": chr(int(high + low, 16)) for high in "0123456789abcdefABCDEF"
          for low in "0123456789abcdefABCDEF"}  # fmt: skip
_MAX_CODE_POINT = 0x10FFFF


def _decode_percent(match: re.Match[str]) -> str:
    return _PERCENT_BYTES[match[0]]


def _decode_html(match: re.Match[str]) -> str:
    name = match[0]
    if name[1] != "#":
        return _HTML_ENTITIES[name]
    code = int(name[3:-1], 16) if name[2] in "xX" else int(name[2:-1])
    return chr(code) if code <= _MAX_CODE_POINT else name


def _decode_backslash_code(match: re.Match[str]) -> str:
    code = int(match[0].lstrip("\\")[1:], 16)
    return chr(code) if code <= _MAX_CODE_POINT else match[0]


def _decode_shell(_match: re.Match[str]) -> str:
    return "'"


def _decode_backslashes(_match: re.Match[str]) -> str:
    return ""


_ESCAPE_KINDS: tuple[tuple[tuple[str, ...], re.Pattern[str], _Decode], ...] = (
    (("%",), _PERCENT_PATTERN, _decode_percent),
    (("&",), _HTML_PATTERN, _decode_html),
    (("'\\", "'\"'\"'"), _SHELL_PATTERN, _decode_shell),
    (("\\x", "\\u", "\\U"), _BACKSLASH_CODE_PATTERN, _decode_backslash_code),
)
"""Of each kind: one of what a text has that has any of it, what is replaced, and by what."""


class DecodeStep:
    """One kind of escapes undone in a text.

    Args:
        text: What it was before.
        pattern: What was replaced.
        decode: By what.
    """

    __slots__ = ("_decode", "_edits", "_pattern", "_text")

    def __init__(self, text: str, pattern: re.Pattern[str], decode: _Decode) -> None:
        self._text = text
        self._pattern = pattern
        self._decode = decode
        self._edits: tuple[list[int], list[int], list[Span]] | None = None

    def original_span(self, span: Span) -> Span:
        """Return where in the text before it stood what stands at a span of the text after it."""
        if self._edits is None:  # only a text with a secret in it pays for this
            self._edits = self._find_edits()
        starts, ends, sources = self._edits
        start, end = span
        at = bisect_right(starts, start) - 1
        if at >= 0:  # what was dropped just before goes with it
            start = sources[at][0] if starts[at] == start else sources[at][1] + start - ends[at]
        at = bisect_right(starts, end - 1) - 1
        if at >= 0:
            end = sources[at][1] + end - ends[at]
        return start, end

    def _find_edits(self) -> tuple[list[int], list[int], list[Span]]:
        starts: list[int] = []
        ends: list[int] = []
        sources: list[Span] = []
        shorter = 0
        for match in self._pattern.finditer(self._text):
            size = len(self._decode(match))
            starts.append(match.start() - shorter)
            ends.append(starts[-1] + size)
            sources.append(match.span())
            shorter += match.end() - match.start() - size
        return starts, ends, sources


def decode_steps(text: str) -> Iterator[tuple[str, list[DecodeStep]]]:
    """Yield a text after each step that changed it, with the steps that led there: after each, a secret may show."""
    steps: list[DecodeStep] = []
    for _ in range(MAX_ROUNDS):
        count = len(steps)
        for marks, pattern, decode in _ESCAPE_KINDS:
            if any(mark in text for mark in marks) and (shorter := pattern.sub(decode, text)) != text:
                steps.append(DecodeStep(text, pattern, decode))
                text = shorter
                yield text, steps
        if len(steps) > count:
            continue
        # Only when nothing else is left: a backslash may be the beginning of what another round decodes.
        if "\\" not in text:
            return
        steps.append(DecodeStep(text, _BACKSLASHES_PATTERN, _decode_backslashes))
        text = text.replace("\\", "")
        yield text, steps


def has_escapes(text: str) -> bool:
    """Return whether a text may have something to be decoded."""
    return "\\" in text or "%" in text or "&" in text or "'\"'" in text


__all__ = ["MAX_ROUNDS", "DecodeStep", "Span", "decode_steps", "has_escapes"]
