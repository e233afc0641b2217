"""Parses a TOML text to values with their locations, and enforces limits of size and depth."""

from __future__ import annotations

import re
from typing import Any

import tomli

from ostler.config.toml_positions import KeyPath, LimitExceeded, TextPosition, key_positions

MAX_FILE_SIZE = 1024 * 1024
"""Maximum size of a configuration file in bytes."""
MAX_FILES = 500
"""Maximum number of files in a configuration directory."""
_MAX_INTEGER_BITS = 1024
"""Maximum number of digits of a whole number; the range of an option is checked by its model."""
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{1000,}")


class TomlError(Exception):
    """Raised for an invalid text; `what` says why, `line` and `column` where, both 0 if unknown."""

    def __init__(self, what: str, line: int = 0, column: int = 0) -> None:
        super().__init__(what)
        self.what, self.line, self.column = what, line, column


def parse_toml(text: str) -> tuple[dict[str, Any], dict[KeyPath, TextPosition]]:
    """Return the values of a TOML text, and the location of each key and item.

    Raises:
        Unreadable: The text is not valid TOML, or exceeds the limits of a configuration.
    """
    try:
        # First, because it stops early: tomli needs hours for a key with many parts.
        positions = key_positions(text)
        data = tomli.loads(text)
    except LimitExceeded as error:
        raise TomlError(error.what, *error.position) from None
    except tomli.TOMLDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise TomlError(f"not valid TOML: {what}", error.lineno, error.colno) from None
    except RecursionError:
        raise TomlError("nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python reads
        found = _LONG_NUMBER.search(text)
        place = _line_and_column(text, found.start()) if found else (0, 0)
        raise TomlError("number too long" if found else f"cannot be parsed: {error}", *place) from None
    _check_numbers(data, positions)
    return data, positions


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _check_numbers(data: dict[str, Any], positions: dict[KeyPath, TextPosition]) -> None:
    nodes: list[tuple[KeyPath, Any]] = [((), data)]
    while nodes:
        path, node = nodes.pop()
        if isinstance(node, dict):
            nodes += [((*path, key), value) for key, value in node.items()]
        elif isinstance(node, list):
            nodes += [((*path, number), value) for number, value in enumerate(node)]
        elif isinstance(node, int) and node.bit_length() > _MAX_INTEGER_BITS:
            raise TomlError("number too long", *positions.get(path, (0, 0)))
