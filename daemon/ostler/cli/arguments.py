"""The global options, read by hand: before the verb, and `--root` and `--json` after it as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_VALUES = ("--root", "--timeout")


class Arguments(NamedTuple):
    """What was typed, taken apart.

    Attributes:
        root: The value of `--root`, None when it was not given.
        json: Whether `--json` was given.
        timeout: The text of `--timeout`, None when it was not given.
        rest: Everything else: the verb and what belongs to it.
    """

    root: str | None
    json: bool
    timeout: str | None
    rest: list[str]


def take_apart(argv: Sequence[str]) -> Arguments:
    """Return the global options and the rest of a command line; nothing behind `--` is looked at.

    A global option without its value stays in the rest, where typer finds it and says what is missing.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    json, verb_seen, index = False, False, 0
    while index < len(argv) and argv[index] != "--":
        word = argv[index]
        name, equals, value = word.partition("=")
        ours = name == "--root" or (name in _VALUES and not verb_seen)
        if word == "--json":
            json = True
        elif ours and equals:
            values[name] = value
        elif ours and index + 1 < len(argv):
            index += 1
            values[name] = argv[index]
        else:
            rest.append(word)
            verb_seen = verb_seen or not word.startswith("-")
        index += 1
    return Arguments(values.get("--root"), json, values.get("--timeout"), rest + list(argv[index:]))
