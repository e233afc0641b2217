"""Writes JSON-like values as YAML, for `-o yaml`: block style, every doubtful text in double quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ostler.printable import printable

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*(?: [A-Za-z0-9_./@-]+)*")
"""Texts that need no quotes: they begin with a letter and have no character that YAML gives a meaning."""
_WORDS_OF_YAML = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Texts that some version of YAML takes for another type."""


def to_yaml(value: object) -> str:
    """Return a value of the types of JSON as YAML without a final line break.

    Args:
        value: Mappings with text keys, lists, texts, numbers, booleans and None.
    """
    if isinstance(value, dict | list) and value:
        return "\n".join(_block(value))
    return _scalar(value)


def _block(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(f"{_scalar(str(key))}:", item)
    elif isinstance(value, list):
        for item in value:
            lines = to_yaml(item).split("\n")
            yield f"- {lines[0]}"
            yield from (f"  {line}" for line in lines[1:])


def _entry(key: str, item: object) -> Iterator[str]:
    if isinstance(item, dict | list) and item:
        yield key
        yield from (f"  {line}" for line in _block(item))
    else:
        yield f"{key} {_scalar(item)}"


def _scalar(value: object) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_YAML:
            return value
        # A JSON string is a double-quoted text of YAML; so are the escapes of `printable` within it.
        return printable(json.dumps(value, ensure_ascii=False))
    return json.dumps(value)
