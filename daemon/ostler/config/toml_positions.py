"""Finds the location of each key of a TOML text, which tomli does not report.

It expects texts that tomli accepts. On anything else it stops early and returns the locations found so far, without an
error. A text with too many or too deep keys is refused, in time linear in its size.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple, NoReturn, TypeAlias

import msgspec
import tomli

KeyPath: TypeAlias = tuple[str | int, ...]
"""The path of a value: names of keys, and indexes of items in lists and arrays of tables."""


class TextPosition(NamedTuple):
    """A location in a text, both counted from 1; columns are characters."""

    line: int
    column: int


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INLINE_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_STRING_PATTERNS = {
    '"""': re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{0,2})', re.DOTALL),
    "'''": re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    '"': re.compile(r'"(?:\\.|[^\\"\n])*"'),
    "'": re.compile(r"'[^'\n]*'"),
}


MAX_DEPTH = 32
"""Maximum number of parts of a key: nested tables and lists."""
MAX_KEYS = 10_000
"""Maximum number of keys, tables and items of lists in a text."""


class _UnexpectedText(Exception):
    """Raised if the text is not valid TOML at this place."""


class LimitExceeded(Exception):
    """Raised if a text has too many or too deep keys; `what` says which, `position` where."""

    def __init__(self, what: str, position: TextPosition) -> None:
        super().__init__(what)
        self.what, self.position = what, position


def key_positions(text: str) -> dict[KeyPath, TextPosition]:
    """Return the location of every key, table and list item of a TOML text.

    A key is located at its own part (`c` in `a.b.c = 1`), a table at its first `[header]` or else its first mention, an
    item of a list at the start of its value.

    Raises:
        LimitExceeded: The text has too many keys, or a key has too many parts.
    """
    return _scanned(text).positions()


def text_offset(text: str, position: TextPosition) -> int:
    """Return the offset of a position in a text."""
    start = 0
    for _ in range(position.line - 1):
        start = text.find("\n", start) + 1
    return start + position.column - 1


def text_position(text: str, offset: int) -> TextPosition:
    """Return the position of an offset in a text."""
    return TextPosition(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def statement_starts(text: str) -> list[int]:
    """Return the offsets at which keys and headers begin; of an invalid text those up to its error."""
    scanner = _Scanner(text)
    try:
        scanner.scan()
    except (_UnexpectedText, LimitExceeded, RecursionError):
        pass  # reported by the parser
    return scanner.statements


class TomlLayout(msgspec.Struct, frozen=True):
    """The offsets of the parts of a text that an editor needs.

    Attributes:
        values: Start and end of each value of a key or item of a list, by its path.
        headers: The end of the line of each `[header]`, by the path of its table; without arrays of tables.
        first_header: The start of the first header; None without one.
    """

    values: dict[KeyPath, tuple[int, int]]
    headers: dict[KeyPath, int]
    first_header: int | None


def toml_layout(text: str) -> TomlLayout:
    """Return the offsets of values and headers of a TOML text; for an invalid text as many as could be parsed.

    Raises:
        LimitExceeded: The text has too many keys, or a key has too many parts.
    """
    return _scanned(text).layout()


def _scanned(text: str) -> _Scanner:
    scanner = _Scanner(text)
    try:
        scanner.scan()
    except (_UnexpectedText, RecursionError):
        pass  # tomli reports the error of such a text
    return scanner


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self.statements: list[int] = []
        self._offset = 0
        self._key_end = 0
        self._offsets: dict[KeyPath, int] = {}
        self._tables_with_header: set[KeyPath] = set()
        self._array_lengths: dict[KeyPath, int] = {}  # of arrays of tables so far
        self._values: dict[KeyPath, tuple[int, int]] = {}
        self._headers: dict[KeyPath, int] = {}
        self._first_header: int | None = None

    def layout(self) -> TomlLayout:
        return TomlLayout(self._values, self._headers, self._first_header)

    def positions(self) -> dict[KeyPath, TextPosition]:
        starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        places = {}
        for path, offset in self._offsets.items():
            line = bisect_right(starts, offset)
            places[path] = TextPosition(line, offset - starts[line - 1] + 1)
        return places

    def _record(self, path: KeyPath, offset: int) -> None:
        self._check_depth(len(path), offset)
        self._offsets.setdefault(path, offset)
        if len(self._offsets) > MAX_KEYS:
            self._raise_limit(f"more than {MAX_KEYS} keys and items in this file", offset)

    def _check_depth(self, depth: int, offset: int) -> None:
        if depth > MAX_DEPTH:
            self._raise_limit(f"nested too deeply: a key has at most {MAX_DEPTH} parts", offset)

    def _raise_limit(self, what: str, offset: int) -> NoReturn:
        line = self._text.count("\n", 0, offset) + 1
        raise LimitExceeded(what, TextPosition(line, offset - self._text.rfind("\n", 0, offset)))

    def scan(self) -> None:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._offset < len(self._text):
            self.statements.append(self._offset)
            if self._peek("["):
                table = self._header()
            else:
                self._key_and_value(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        start, many = self._offset, self._peek("[[")
        self._offset += 2 if many else 1
        parts = self._dotted_key()
        self._expect("]]" if many else "]")
        if self._first_header is None:
            self._first_header = start
        path: KeyPath = ()
        for number, (name, offset) in enumerate(parts):
            path = (*path, name)
            self._record(path, offset)
            if many and number == len(parts) - 1:
                self._array_lengths[path] = self._array_lengths.get(path, 0) + 1
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
        if path not in self._tables_with_header:
            self._tables_with_header.add(path)
            self._offsets[path] = start
        if not many:
            end = self._text.find("\n", self._offset)
            self._headers[path] = len(self._text) if end < 0 else end + 1
        return path

    def _key_and_value(self, table: KeyPath) -> None:
        path = table
        for name, offset in self._dotted_key():
            path = (*path, name)
            self._record(path, offset)
        self._expect("=")
        self._skip(_INLINE_SPACE)
        start = self._offset
        self._value(path)
        self._values[path] = (start, start + len(self._text[start : self._offset].rstrip()))

    def _dotted_key(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            self._skip(_INLINE_SPACE)
            parts.append((self._key(), self._offset))
            self._check_depth(len(parts), self._offset)
            self._offset = self._key_end
            self._skip(_INLINE_SPACE)
            if not self._peek("."):
                return parts
            self._offset += 1

    def _key(self) -> str:
        quote = self._text[self._offset : self._offset + 1]
        pattern = _STRING_PATTERNS[quote] if quote in {'"', "'"} else _BARE_KEY
        match = pattern.match(self._text, self._offset)
        if match is None:
            raise _UnexpectedText
        self._key_end = match.end()
        if pattern is _BARE_KEY:
            return match[0]
        try:
            return str(tomli.loads(f"key = {match[0]}")["key"])
        except tomli.TOMLDecodeError:
            raise _UnexpectedText from None

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._offset : self._offset + 3]
        if opening[:1] == "[":
            self._list(path)
        elif opening[:1] == "{":
            self._inline_table(path)
        elif opening in _STRING_PATTERNS:
            self._skip(_STRING_PATTERNS[opening])
        else:
            self._skip(_STRING_PATTERNS.get(opening[:1], _SCALAR))

    def _list(self, path: KeyPath) -> None:
        self._offset += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self._peek("]"):
                break
            self._record((*path, number), self._offset)
            start = self._offset
            self._value((*path, number))
            self._values[*path, number] = (start, start + len(self._text[start : self._offset].rstrip()))
            number += 1
            self._skip_comma("]")
        self._offset += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._offset += 1
        while True:
            self._skip(_BLANK)
            if self._peek("}"):
                break
            self._key_and_value(path)
            self._skip_comma("}")
        self._offset += 1

    def _skip_comma(self, closing: str) -> None:
        self._skip(_BLANK)
        if not self._peek(closing):
            self._expect(",")

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._offset)

    def _expect(self, text: str) -> None:
        if not self._peek(text):
            raise _UnexpectedText
        self._offset += len(text)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._offset)
        if match is None:
            raise _UnexpectedText
        self._offset = match.end()
