"""Parses the global options, which are accepted before and after the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ostler.errors import InvalidInput
from ostler.spelling import nearest

JSON_FORMAT, YAML_FORMAT, NAME_FORMAT, WIDE_FORMAT = "json", "yaml", "name", "wide"
FORMATS = (JSON_FORMAT, YAML_FORMAT, WIDE_FORMAT, NAME_FORMAT)
DEFAULT_WATCH_INTERVAL = 2.0
"""Seconds between two outputs of `--watch`."""

_REMOTE_OPTIONS = (
    "--address", "--server-key", "--secret-key", "--token-file", "--ca-file", "--certificate", "--certificate-key",
)  # fmt: skip
_OPTIONS_WITH_VALUE = {name: name for name in ("--root", "--timeout", "--output", *_REMOTE_OPTIONS)} | {
    "-o": "--output"
}
_FLAGS = {
    name: name
    for name in (
        "--json",
        "--wide",
        "--no-headers",
        "--no-color",
        "--no-pager",
        "--quiet",
        "--verbose",
        "--trust-owner",
    )
} | {"-q": "--quiet", "-v": "--verbose"}
_WATCH = "--watch"
RESERVED_OPTIONS = frozenset({*_OPTIONS_WITH_VALUE, *_FLAGS, _WATCH})
"""The options that no command can have for itself."""


def _ignore_shortened(_hidden: Sequence[str]) -> None:
    pass


class OutputOptions(NamedTuple):
    """How results are shown.

    Attributes:
        format: `json`, `yaml`, `name`, `wide`, or empty: tables as they fit.
        headers: Whether tables begin with their titles.
        color: Whether colours may be used on a terminal.
        pager: Whether a pager may be used on a terminal.
        quiet: Whether confirmations and progress are left out.
        verbose: Whether each call is reported on stderr.
        watch: Seconds between two outputs of a command that is run again and again; 0 to run it once.
        on_shortened: Called when a table did not fit, with the titles of columns that are not shown.
    """

    format: str = ""
    headers: bool = True
    color: bool = True
    pager: bool = True
    quiet: bool = False
    verbose: bool = False
    watch: float = 0.0
    on_shortened: Callable[[Sequence[str]], None] = _ignore_shortened


DEFAULT_OUTPUT = OutputOptions()
"""How results are shown without options."""


class GlobalOptions(NamedTuple):
    """A command line, split into global options and the rest.

    Attributes:
        root: The value of `--root`, None if not given.
        json: Whether the output is for programs: `--json`, `-o json`, `-o yaml`.
        timeout: The text of `--timeout`, None if not given.
        rest: Everything else: the command and its own arguments.
        remote: The values of `--address` and of the options that go with it, by name.
        trust_owner: Whether `--trust-owner` was given.
        output: The text of `--output`, `json` for `--json` and `wide` for `--wide`.
        flags: The flags that were given, by their long names.
        watch: The text of `--watch=TIME`, empty for `--watch` alone, None if not given.
    """

    root: str | None
    json: bool
    timeout: str | None
    rest: list[str]
    remote: Mapping[str, str] = MappingProxyType({})
    trust_owner: bool = False
    output: str = ""
    flags: frozenset[str] = frozenset()
    watch: str | None = None

    @property
    def error_format(self) -> str:
        """The format of errors: `json`, `yaml`, or empty for text."""
        return self.output if self.json else ""

    def output_options(self) -> OutputOptions:
        """Return how results are to be shown.

        Raises:
            InvalidInput: The format does not exist, or the time is not valid.
        """
        if self.output and self.output not in FORMATS:
            near = nearest(self.output, FORMATS)
            meant = f"did you mean `-o {near}`?" if near else f"choose one of {', '.join(FORMATS)}"
            raise InvalidInput(f"output format {self.output} not found", hint=meant)
        return OutputOptions(
            format=self.output,
            headers="--no-headers" not in self.flags,
            color="--no-color" not in self.flags,
            pager="--no-pager" not in self.flags,
            quiet="--quiet" in self.flags,
            verbose="--verbose" in self.flags,
            watch=self._watch_interval(),
        )

    def _watch_interval(self) -> float:
        if not self.watch:
            return 0.0 if self.watch is None else DEFAULT_WATCH_INTERVAL
        from ostler.config.units import parse_seconds  # only for an interval

        seconds = parse_seconds(self.watch)
        if seconds < 0.1:
            raise InvalidInput(f"the interval of --watch is {self.watch}", hint="0.1s is the shortest")
        return seconds


def split_global_options(argv: Sequence[str]) -> GlobalOptions:
    """Return the global options and the rest of a command line; nothing after `--` is parsed.

    A global option without its value stays in the rest, where typer reports the missing value.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    flags: set[str] = set()
    watch: str | None = None
    index = 0
    while index < len(argv) and argv[index] != "--":
        word = argv[index]
        name, equals, value = word.partition("=")
        option = _OPTIONS_WITH_VALUE.get(name)
        if word in _FLAGS:
            flags.add(_FLAGS[word])
        elif name == _WATCH:
            watch = value
        elif option and equals:
            values[option] = value
        elif word.startswith("-o") and word[2:] in FORMATS:  # as in `-ojson`
            values["--output"] = word[2:]
        elif option and index + 1 < len(argv):
            index += 1
            values[option] = argv[index]
        else:
            rest.append(word)
        index += 1
    output = values.get("--output") or (JSON_FORMAT if "--json" in flags else WIDE_FORMAT if "--wide" in flags else "")
    return GlobalOptions(
        root=values.get("--root"),
        json=output in (JSON_FORMAT, YAML_FORMAT),
        timeout=values.get("--timeout"),
        rest=[*rest, *argv[index:]],
        remote={name: values[name] for name in _REMOTE_OPTIONS if name in values},
        trust_owner="--trust-owner" in flags,
        output=output,
        flags=frozenset(flags),
        watch=watch,
    )
