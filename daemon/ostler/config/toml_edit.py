"""Inserts a value into a TOML text, or removes one; comments, order and formatting of the rest do not change."""

from __future__ import annotations

from typing import Any

from ostler.config.layers import dotted
from ostler.config.option_reference import toml_value
from ostler.config.toml_parser import TomlError, parse_toml
from ostler.config.toml_positions import TomlLayout, statement_starts, toml_layout


class ValueNotInFile(Exception):
    """Raised when an option that is to be removed is not set in the text."""


class EditError(Exception):
    """Raised if a value cannot be inserted into a text; the message says why."""


def set_value(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return a TOML text in which an option has a value.

    An existing value is replaced. A new one is inserted below the header of its table, or as a dotted key before the
    first header.

    Args:
        text: The text.
        path: The option.
        value: Its value, as tomli would return it.

    Raises:
        EditError: The option is a table with its own header, or a part of its path is not a table.
        Unreadable: The text is not valid TOML.
    """
    wanted = _merge_value(parse_toml(text)[0], path, value)
    edited = _edit_text(text, toml_layout(text), path, value)
    try:
        same = parse_toml(edited)[0] == wanted
    except TomlError:
        same = False
    if not same:
        raise EditError(f"{dotted(path)} cannot be set in this file without rewriting other parts of it")
    return edited


def remove_value(text: str, path: tuple[str, ...]) -> str:
    """Return a TOML text without an option; its line is removed with the comment in it.

    Args:
        text: The text.
        path: The option.

    Raises:
        ValueNotInFile: The option is not set in the text, or is a table with its own header.
        EditError: It cannot be removed without rewriting other parts.
        TomlError: The text is not valid TOML.
    """
    wanted, layout = parse_toml(text)[0], toml_layout(text)
    if path not in layout.values:
        raise ValueNotInFile(dotted(path))
    edited = _remove_statement(text, layout, path)
    try:
        same = _without_empty(parse_toml(edited)[0]) == _without_empty(_removed(wanted, path))
    except TomlError:
        same = False
    if not same:
        raise EditError(f"{dotted(path)} cannot be removed from this file without rewriting other parts of it")
    return edited


def _remove_statement(text: str, layout: TomlLayout, path: tuple[str, ...]) -> str:
    for length in range(1, len(path)):
        if path[:length] in layout.values:  # an inline table: its line is rewritten
            start, end = layout.values[path[:length]]
            inner = parse_toml(f"table = {text[start:end]}")[0]["table"]
            return text[:start] + toml_value(_removed(inner, path[length:])) + text[end:]
    start, end = layout.values[path]
    line_end = text.find("\n", end)
    key = max(at for at in statement_starts(text) if at < start)
    return text[: text.rfind("\n", 0, key) + 1] + (text[line_end + 1 :] if line_end >= 0 else "")


def _removed(tables: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node = tables
    for name in path[:-1]:
        node = node[name]
    del node[path[-1]]
    return tables


def _without_empty(value: Any) -> Any:
    """Return tables without those that are empty: a dotted key that is removed takes its table with it."""
    if not isinstance(value, dict):
        return value
    kept = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item != {}}


def _merge_value(tables: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    node = tables
    for length, name in enumerate(path[:-1], 1):
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise EditError(f"{dotted(path[:length])} is a value, not a table")
    node[path[-1]] = value
    return tables


def _edit_text(text: str, found: TomlLayout, path: tuple[str, ...], value: Any) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if path in found.values:
        start, end = found.values[path]
        return text[:start] + toml_value(value) + text[end:]
    for length in range(len(path) - 1, 0, -1):
        around = path[:length]
        if around in found.values:  # an inline table: its line is rewritten
            start, end = found.values[around]
            inner = _merge_value(parse_toml(f"table = {text[start:end]}")[0]["table"], path[length:], value)
            return text[:start] + toml_value(inner) + text[end:]
        if around in found.headers:
            return _insert_line(text, found.headers[around], f"{dotted(path[length:])} = {toml_value(value)}", newline)
    at = len(text) if found.first_header is None else found.first_header
    return _insert_line(text, at, f"{dotted(path)} = {toml_value(value)}", newline)


def _insert_line(text: str, at: int, line: str, newline: str) -> str:
    before = text[:at]
    if before and not before.endswith("\n"):
        before += newline
    return f"{before}{line}{newline}{text[at:]}"
