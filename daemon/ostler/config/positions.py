"""Where each key of a TOML text stands: tomli reads values but tells no places, so that this index is our own.

It is made for texts that tomli accepts. On anything else it stops early and keeps what it has: a place less, never
an error. A text with more or deeper keys than any configuration has is refused, in time that grows with its size alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple, NoReturn, TypeAlias

import msgspec
import tomli

Path: TypeAlias = tuple[str | int, ...]
"""The way to a value: names of keys, and numbers of items in lists and arrays of tables."""


class Position(NamedTuple):
    """A place in a text, both counted from 1; columns are characters."""

    line: int
    column: int


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_STRINGS = {
    '"""': re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{0,2})', re.DOTALL),
    "'''": re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    '"': re.compile(r'"(?:\\.|[^\\"\n])*"'),
    "'": re.compile(r"'[^'\n]*'"),
}


MAX_DEPTH = 32
"""Parts of a key: tables and lists in each other."""
MAX_KEYS = 10_000
"""Keys, tables and items of lists in one text."""


class _Lost(Exception):
    """Raised when the text is not what TOML allows at this place."""


class OutOfBounds(Exception):
    """Raised when a text has more or deeper keys than it may; `what` says which, `position` where."""

    def __init__(self, what: str, position: Position) -> None:
        super().__init__(what)
        self.what, self.position = what, position


def key_positions(text: str) -> dict[Path, Position]:
    """Return the place of every key, table and list item of a TOML text.

    A key stands where its own part begins (`c` in `a.b.c = 1`), a table at its first `[header]`, else where it is first
    mentioned, an item of a list where its value begins.

    Raises:
        OutOfBounds: There are too many keys, or one has too many parts.
    """
    return _scanned(text).positions()


class Layout(msgspec.Struct, frozen=True):
    """Where the parts of a text are that an editor needs, as offsets.

    Attributes:
        values: Beginning and end of each value that stands after a key, by its path.
        headers: The end of the line of each `[header]`, by the path of its table; arrays of tables are not here.
        first_header: Where the first header begins; None when there is none.
    """

    values: dict[Path, tuple[int, int]]
    headers: dict[Path, int]
    first_header: int | None


def layout(text: str) -> Layout:
    """Return where the values and headers of a TOML text stand; of what tomli refuses, as much as was understood.

    Raises:
        OutOfBounds: There are too many keys, or one has too many parts.
    """
    return _scanned(text).layout()


def _scanned(text: str) -> _Scanner:
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (_Lost, RecursionError):
        pass  # tomli has said, or will say, what is wrong with such a text
    return scanner


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._key_end = 0
        self._found: dict[Path, int] = {}
        self._headed: set[Path] = set()
        self._lengths: dict[Path, int] = {}  # of arrays of tables so far
        self._values: dict[Path, tuple[int, int]] = {}
        self._headers: dict[Path, int] = {}
        self._first_header: int | None = None

    def layout(self) -> Layout:
        return Layout(self._values, self._headers, self._first_header)

    def positions(self) -> dict[Path, Position]:
        starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        places = {}
        for path, offset in self._found.items():
            line = bisect_right(starts, offset)
            places[path] = Position(line, offset - starts[line - 1] + 1)
        return places

    def _note(self, path: Path, offset: int) -> None:
        self._check_depth(len(path), offset)
        self._found.setdefault(path, offset)
        if len(self._found) > MAX_KEYS:
            self._refuse(f"there are more than {MAX_KEYS} keys and items in this file", offset)

    def _check_depth(self, depth: int, offset: int) -> None:
        if depth > MAX_DEPTH:
            self._refuse(f"this is nested too deeply: a key has at most {MAX_DEPTH} parts", offset)

    def _refuse(self, what: str, offset: int) -> NoReturn:
        line = self._text.count("\n", 0, offset) + 1
        raise OutOfBounds(what, Position(line, offset - self._text.rfind("\n", 0, offset)))

    def document(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._peek("["):
                table = self._header()
            else:
                self._key_and_value(table)
            self._skip(_BLANK)

    def _header(self) -> Path:
        start, many = self._at, self._peek("[[")
        self._at += 2 if many else 1
        parts = self._dotted_key()
        self._expect("]]" if many else "]")
        if self._first_header is None:
            self._first_header = start
        path: Path = ()
        for number, (name, offset) in enumerate(parts):
            path = (*path, name)
            self._note(path, offset)
            if many and number == len(parts) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        if path not in self._headed:
            self._headed.add(path)
            self._found[path] = start
        if not many:
            end = self._text.find("\n", self._at)
            self._headers[path] = len(self._text) if end < 0 else end + 1
        return path

    def _key_and_value(self, table: Path) -> None:
        path = table
        for name, offset in self._dotted_key():
            path = (*path, name)
            self._note(path, offset)
        self._expect("=")
        self._skip(_SPACE)
        start = self._at
        self._value(path)
        self._values[path] = (start, start + len(self._text[start : self._at].rstrip()))

    def _dotted_key(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append((self._key(), self._at))
            self._check_depth(len(parts), self._at)
            self._at = self._key_end
            self._skip(_SPACE)
            if not self._peek("."):
                return parts
            self._at += 1

    def _key(self) -> str:
        quote = self._text[self._at : self._at + 1]
        pattern = _STRINGS[quote] if quote in {'"', "'"} else _BARE_KEY
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._key_end = match.end()
        if pattern is _BARE_KEY:
            return match[0]
        try:
            return str(tomli.loads(f"key = {match[0]}")["key"])
        except tomli.TOMLDecodeError:
            raise _Lost from None

    def _value(self, path: Path) -> None:
        opening = self._text[self._at : self._at + 3]
        if opening[:1] == "[":
            self._list(path)
        elif opening[:1] == "{":
            self._inline_table(path)
        elif opening in _STRINGS:
            self._skip(_STRINGS[opening])
        else:
            self._skip(_STRINGS.get(opening[:1], _SCALAR))

    def _list(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self._peek("]"):
                break
            self._note((*path, number), self._at)
            self._value((*path, number))
            number += 1
            self._comma("]")
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self._peek("}"):
                break
            self._key_and_value(path)
            self._comma("}")
        self._at += 1

    def _comma(self, closing: str) -> None:
        self._skip(_BLANK)
        if not self._peek(closing):
            self._expect(",")

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _expect(self, text: str) -> None:
        if not self._peek(text):
            raise _Lost
        self._at += len(text)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
