"""Writes option values as TOML, each with its origin as a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from ostler.config.layers import dotted
from ostler.config.option_reference import toml_value
from ostler.printable import printable
from ostler.types import Json, OptionValue

MASKED = "***"
_PART = re.compile(r'\.?(?:([A-Za-z0-9_-]+)|("(?:[^"\\]|\\.)*"))')


def config_toml(values: Iterable[OptionValue]) -> str:
    """Return values as a TOML document; what it cannot hold is a comment: options without a value, and secrets.

    Args:
        values: The options, in their order; those of a table stand together below its header.
    """
    tables: dict[tuple[str, ...], list[str]] = {}
    for option in values:
        *table, name = split_path(option.path)
        tables.setdefault(tuple(table), []).append(_option_line(name, option))
    # Keys without a table have to come before the first header.
    return "\n\n".join("\n".join(_table_lines(table, tables[table])) for table in sorted(tables, key=bool))


def split_path(path: str) -> list[str]:
    """Return the parts of an option's path, such as `log.levels."ostler.store"`."""
    return [bare or json.loads(quoted) for bare, quoted in _PART.findall(path)]


def matches_prefix(path: str, prefix: str) -> bool:
    """Return whether an option is the one of a prefix, or below it."""
    parts = split_path(prefix)
    return split_path(path)[: len(parts)] == parts


def _table_lines(table: tuple[str, ...], lines: list[str]) -> Iterator[str]:
    if table:
        yield f"[{_escaped(dotted(table))}]"
    yield from lines


def _option_line(name: str, option: OptionValue) -> str:
    key = dotted((name,))
    origin = printable(option.origin)
    if option.value is None:
        return f"# {_escaped(key)} is not set"
    line = _escaped(f"{key} = {toml_value(option.text or _without_null(option.value))}")
    return f"# {line}  # {origin}; masked" if _has_secret(option.value) else f"{line}  # {origin}"


def _escaped(text: str) -> str:
    """Return TOML in which characters that are not `printable` are escapes of TOML: they stand in strings alone."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if printable(char) == char else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _has_secret(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_secret, value.values()))
    return any(map(_has_secret, value)) if isinstance(value, list) else value == MASKED


def _without_null(value: Json) -> Json:
    """Return a value without members that are None, for which TOML has no word."""
    if isinstance(value, Mapping):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value if item is not None] if isinstance(value, list) else value
