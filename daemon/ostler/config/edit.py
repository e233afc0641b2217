"""One value put into a TOML text, with comments, order and formatting of all the rest left as they are."""

from __future__ import annotations

from typing import Any

from ostler.config.layers import dotted
from ostler.config.parsing import Unreadable, parse
from ostler.config.positions import Layout, layout
from ostler.config.reference import toml_value


class CannotEdit(Exception):
    """Raised when a text is written in a way that a single value cannot be put into; says why."""


def with_value(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return a TOML text in which an option has a value.

    A value that is there is replaced in its place. A new one goes below the header of its table, or before the first
    header as a dotted key.

    Args:
        text: The text.
        path: The option.
        value: Its value, as tomli would return it.

    Raises:
        CannotEdit: The option is a table with a header of its own there, or part of it is no table.
        Unreadable: The text is no TOML.
    """
    wanted = _merged(parse(text)[0], path, value)
    edited = _edited(text, layout(text), path, value)
    try:
        same = parse(edited)[0] == wanted
    except Unreadable:
        same = False
    if not same:
        raise CannotEdit(f"{dotted(path)} cannot be put into this file without writing the rest of it anew")
    return edited


def _merged(tables: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    node = tables
    for length, name in enumerate(path[:-1], 1):
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise CannotEdit(f"{dotted(path[:length])} is a value there, not a table")
    node[path[-1]] = value
    return tables


def _edited(text: str, found: Layout, path: tuple[str, ...], value: Any) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if path in found.values:
        start, end = found.values[path]
        return text[:start] + toml_value(value) + text[end:]
    for length in range(len(path) - 1, 0, -1):
        around = path[:length]
        if around in found.values:  # a table on one line: that line is written anew
            start, end = found.values[around]
            inner = _merged(parse(f"table = {text[start:end]}")[0]["table"], path[length:], value)
            return text[:start] + toml_value(inner) + text[end:]
        if around in found.headers:
            return _inserted(text, found.headers[around], f"{dotted(path[length:])} = {toml_value(value)}", newline)
    at = len(text) if found.first_header is None else found.first_header
    return _inserted(text, at, f"{dotted(path)} = {toml_value(value)}", newline)


def _inserted(text: str, at: int, line: str, newline: str) -> str:
    before = text[:at]
    if before and not before.endswith("\n"):
        before += newline
    return f"{before}{line}{newline}{text[at:]}"
