"""One TOML text as values with their places, within bounds: what is refused here is refused in words and at once."""

from __future__ import annotations

import re
from typing import Any

import tomli

from ostler.config.positions import OutOfBounds, Path, Position, key_positions

MAX_SIZE = 1024 * 1024
"""Bytes of one file of the configuration."""
MAX_FILES = 500
"""Files of one directory of the configuration."""
_BITS = 1024
"""Of a whole number: what is longer cannot be shown. Which numbers an option takes, its model says."""
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{1000,}")


class Unreadable(Exception):
    """Raised when a text cannot be used; `what` says why, `line` and `column` where, both 0 when that is not known."""

    def __init__(self, what: str, line: int = 0, column: int = 0) -> None:
        super().__init__(what)
        self.what, self.line, self.column = what, line, column


def parse(text: str) -> tuple[dict[str, Any], dict[Path, Position]]:
    """Return what a TOML text says, and where each key and item stands.

    Raises:
        Unreadable: It is not TOML, or exceeds the bounds of a configuration.
    """
    try:
        # First, for it gives up in time: tomli needs hours for a key of many parts.
        positions = key_positions(text)
        data = tomli.loads(text)
    except OutOfBounds as error:
        raise Unreadable(error.what, *error.position) from None
    except tomli.TOMLDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise Unreadable(f"this is no TOML: {what}", error.lineno, error.colno) from None
    except RecursionError:
        raise Unreadable("this is nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python reads
        found = _LONG_NUMBER.search(text)
        place = _place(text, found.start()) if found else (0, 0)
        raise Unreadable("this number is too long" if found else f"this cannot be read: {error}", *place) from None
    _check_numbers(data, positions)
    return data, positions


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _check_numbers(data: dict[str, Any], positions: dict[Path, Position]) -> None:
    nodes: list[tuple[Path, Any]] = [((), data)]
    while nodes:
        path, node = nodes.pop()
        if isinstance(node, dict):
            nodes += [((*path, key), value) for key, value in node.items()]
        elif isinstance(node, list):
            nodes += [((*path, number), value) for number, value in enumerate(node)]
        elif isinstance(node, int) and node.bit_length() > _BITS:
            raise Unreadable("this number is too long", *positions.get(path, (0, 0)))
