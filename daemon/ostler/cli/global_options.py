"""Parses the global options: before the command, and `--root`, `--json` and `--trust-owner` after it as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

_REMOTE_OPTIONS = ("--address", "--server-key", "--secret-key")
_OPTIONS_WITH_VALUE = ("--root", "--timeout", *_REMOTE_OPTIONS)
_FLAGS = ("--json", "--trust-owner")


class GlobalOptions(NamedTuple):
    """A command line, split into global options and the rest.

    Attributes:
        root: The value of `--root`, None if not given.
        json: Whether `--json` was given.
        timeout: The text of `--timeout`, None if not given.
        rest: Everything else: the command and its own arguments.
        remote: The values of `--address`, `--server-key` and `--secret-key` that were given.
        trust_owner: Whether `--trust-owner` was given.
    """

    root: str | None
    json: bool
    timeout: str | None
    rest: list[str]
    remote: Mapping[str, str] = MappingProxyType({})
    trust_owner: bool = False


def split_global_options(argv: Sequence[str]) -> GlobalOptions:
    """Return the global options and the rest of a command line; nothing after `--` is parsed.

    A global option without its value stays in the rest, where typer reports the missing value.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    flags: set[str] = set()
    verb_seen, index = False, 0
    while index < len(argv) and argv[index] != "--":
        word = argv[index]
        name, equals, value = word.partition("=")
        ours = name == "--root" or (name in _OPTIONS_WITH_VALUE and not verb_seen)
        if word in _FLAGS:
            flags.add(word)
        elif ours and equals:
            values[name] = value
        elif ours and index + 1 < len(argv):
            index += 1
            values[name] = argv[index]
        else:
            rest.append(word)
            verb_seen = verb_seen or not word.startswith("-")
        index += 1
    remote = {name: values[name] for name in _REMOTE_OPTIONS if name in values}
    rest += argv[index:]
    json, trust_owner = (flag in flags for flag in _FLAGS)
    return GlobalOptions(values.get("--root"), json, values.get("--timeout"), rest, remote, trust_owner)
