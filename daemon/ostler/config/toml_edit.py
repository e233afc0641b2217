"""Sets a value in a TOML text, or removes one, by tomlkit; comments, order, formatting and line ends of the rest stay.

Every result is read again with the parser of the configuration: what would mean something else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from ostler.config.layers import dotted
from ostler.config.option_reference import toml_value
from ostler.config.toml_parser import TomlError, parse_toml
from ostler.config.toml_positions import KeyPath, statement_starts, toml_layout

Edit = Callable[[Any], None]
"""Changes tables in place, those of tomlkit as well as plain ones."""


class ValueNotInFile(Exception):
    """Raised when an option that is to be removed is not set in the text."""


class EditError(Exception):
    """Raised if a value cannot be set in a text; the message says why."""


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """Return a TOML text in which an option has a value.

    An existing value is replaced, and keeps its comment; of a list or table only what differs changes. A new one is put
    below its commented-out default, else after the last value below the header of its table. Without such a header it
    gets one at the end of the text, or is a dotted key if the text has no headers.

    Args:
        text: The text.
        path: The option; numbers are indexes of lists.
        value: Its value, as tomli would return it.

    Raises:
        EditError: A part of its path is not a table, or the text has a form that cannot be edited.
        TomlError: The text is not valid TOML.
    """
    before = _Text(text)
    wanted = before.parsed()
    is_new = not _is_set(wanted, path)
    _set(wanted, path, value)
    for edited in _candidates(before, path, value, is_new=is_new):
        if edited is not None and _means(edited, wanted):
            return before.with_line_ends(edited)
    raise EditError(f"{dotted(path)} cannot be set in this file without rewriting other parts of it")


def remove_value(text: str, path: KeyPath) -> str:
    """Return a TOML text without an option, table or item of a list; the comment in its line is removed with it.

    Args:
        text: The text.
        path: The option; numbers are indexes of lists.

    Raises:
        ValueNotInFile: The option is not set in the text.
        EditError: The text has a form that cannot be edited.
        TomlError: The text is not valid TOML.
    """
    before = _Text(text)
    wanted = before.parsed()
    if not _is_set(wanted, path):
        raise ValueNotInFile(dotted(path))
    _remove(wanted, path)
    edited = before.with_tables(lambda tables: _remove(tables, path))
    if edited is None or not _means(edited, wanted):
        raise EditError(f"{dotted(path)} cannot be removed from this file without rewriting other parts of it")
    return before.with_line_ends(edited)


class _Text:
    """A text with line feeds only, and its own line ends."""

    def __init__(self, text: str) -> None:
        self._original = text
        self.text = text.replace("\r\n", "\n")

    def parsed(self) -> Any:
        return parse_toml(self.text)[0]

    def with_tables(self, edit: Edit) -> str | None:
        """Return the text after an edit by tomlkit; None if that cannot edit it."""
        try:
            document = tomlkit.parse(self.text)
            if tomlkit.dumps(document) != self.text:
                return None
            edit(document)
            return tomlkit.dumps(document)
        except (TOMLKitError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None  # tomlkit gives up in many ways

    def with_line_ends(self, edited: str) -> str:
        """Return an edited text with the line ends of the original; a new line has that of the line before it."""
        if "\r\n" not in self._original:
            return edited
        old, new = self.text.split("\n"), edited.split("\n")
        ends = ["\r\n" if line.endswith("\r") else "\n" for line in self._original.split("\n")]
        ends[-1] = ends[-2]
        first = _common_length(old, new)
        last = _common_length(old[first:][::-1], new[first:][::-1])
        changed = ends[first : len(old) - last] or ends[max(first - 1, 0) :][:1]
        count = len(new) - first - last
        changed = (changed + changed[-1:] * count)[:count]
        every = [*ends[:first], *changed, *ends[len(old) - last :]]
        return "".join(line + end for line, end in zip(new[:-1], every, strict=False)) + new[-1]


def _common_length(one: list[str], other: list[str]) -> int:
    """Return how many lines at the beginning are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def _candidates(before: _Text, path: KeyPath, value: Any, *, is_new: bool) -> Iterator[str | None]:
    """Yield texts with a value, the best first; some may mean something else, or be no valid TOML."""
    if is_new:
        yield from _inserted(before.text, path, value)
    yield before.with_tables(lambda tables: _set(tables, path, value))
    found = toml_layout(before.text).values.get(path)
    if found is not None:
        yield before.text[: found[0]] + toml_value(value) + before.text[found[1] :]


def _inserted(text: str, path: KeyPath, value: Any) -> Iterator[str]:
    """Yield texts with a line for a value that is not in it yet."""
    layout, written = toml_layout(text), toml_value(value)
    for length in range(len(path) - 1, 0, -1):
        start, name = layout.headers.get(path[:length]), dotted(path[length:])
        if start is not None:
            for place in _places(text, start, name):
                yield _insert_line(text, place, f"{name} = {written}")
    if layout.first_header is not None:
        gap = "" if text.endswith("\n") else "\n"
        yield f"{text}{gap}\n[{dotted(path[:-1])}]\n{dotted(path[-1:])} = {written}\n"
    for place in _places(text, 0, dotted(path)):
        yield _insert_line(text, place, f"{dotted(path)} = {written}")


def _places(text: str, start: int, name: str) -> Iterator[int]:
    """Yield where a line fits best between a header and the next: below its default, the last value, or the header."""
    statements = [at for at in statement_starts(text) if at >= start]
    end = next((at for at in statements if text[at] == "["), len(text))
    shown = re.compile(rf"^[ \t]*#[ \t]*{re.escape(name)}[ \t]*=.*$", re.MULTILINE).search(text, start, end)
    if shown is not None:
        yield _next_line(text, shown.end())
    ends = [last for first, last in toml_layout(text).values.values() if start <= first < end]
    if ends:
        yield _next_line(text, max(ends))
    yield start if start or end < len(text) else end


def _next_line(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _insert_line(text: str, at: int, line: str) -> str:
    gap = "" if at == 0 or text[at - 1] == "\n" else "\n"
    return f"{text[:at]}{gap}{line}\n{text[at:]}"


def _is_set(tables: Any, path: KeyPath) -> bool:
    try:
        for name in path:
            tables = tables[name]
    except (LookupError, TypeError):
        return False
    return True


def _set(tables: Any, path: KeyPath, value: Any) -> None:
    node = tables
    for length, name in enumerate(path[:-1], 1):
        if isinstance(name, str) and isinstance(node, MutableMapping) and name not in node:
            node[name] = {}
        node = _entry(node, name, path[:length])
        if not isinstance(node, MutableMapping | MutableSequence):
            raise EditError(f"{dotted(path[:length])} is a value, not a table")
    if isinstance(path[-1], int) or isinstance(node, MutableSequence):
        _entry(node, path[-1], path)
    _replace(node, path[-1], value)


def _entry(node: Any, name: str | int, path: KeyPath) -> Any:
    if isinstance(name, int) != isinstance(node, MutableSequence):
        raise EditError(f"{dotted(path[:-1])} is {'not ' if isinstance(name, int) else ''}a list")
    if isinstance(name, int) and name >= len(node):
        raise EditError(f"{dotted(path[:-1])} has only {len(node)} items, counted from 0")
    return node[name]


def _replace(node: Any, name: str | int, value: Any) -> None:
    """Replace a value; of a table or list only what differs, so that its comments stay."""
    old = node[name] if isinstance(name, int) or name in node else None
    if isinstance(old, MutableMapping) and isinstance(value, dict):
        for key in [key for key in old if key not in value]:
            del old[key]
        for key, item in value.items():
            if key not in old or _canonical(old[key]) != _canonical(item):
                _replace(old, key, item)
    elif isinstance(old, MutableSequence) and isinstance(value, list):
        _replace_items(old, value)
    elif isinstance(old, Table | AoT):
        raise EditError(f"{dotted((name,))} is a table with a header, not a value")
    else:
        node[name] = value


def _replace_items(old: Any, value: list[Any]) -> None:
    while len(old) > len(value):
        del old[len(old) - 1]
    for number, item in enumerate(value[: len(old)]):
        if _canonical(old[number]) != _canonical(item):
            _replace(old, number, item)
    for item in value[len(old) :]:
        old.append(item)


def _remove(tables: Any, path: KeyPath) -> None:
    node: Any = tables
    for name in path[:-1]:
        node = node[name]
    del node[path[-1]]


def _means(text: str, wanted: Any) -> bool:
    try:
        return bool(_canonical(parse_toml(text)[0]) == _canonical(wanted))
    except TomlError:
        return False


def _canonical(value: Any) -> Any:
    """Return a value for comparison: without empty tables, as a dotted key that is removed takes its table with it.

    Numbers are compared with their type, as `1`, `1.0` and `true` are equal otherwise.
    """
    value = value.unwrap() if hasattr(value, "unwrap") else value
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if not isinstance(value, dict):
        return type(value).__name__, repr(value) if isinstance(value, float) else value  # nan is not equal to itself
    kept = {key: _canonical(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item != {}}
