"""`docs/cli.md`, made from the declarations of the verbs: `python -m ostler.cli.reference > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from ostler.cli.failures import INTERRUPTED, TRACEBACK
from ostler.cli.tree import VERBS, root_command
from ostler.errors import CONFIGURATION, FAILED, NOT_PERMITTED, NOT_RUNNING, USAGE, WELL

EXIT_CODES = {
    WELL: "Done. Also when the reader of a pipe had enough (`ostler … | head`).",
    FAILED: "It failed; or `--check` found something that is not well.",
    USAGE: "Usage: a verb, option, argument or value that can never be right.",
    NOT_RUNNING: "The daemon is not running; the hint says how to start it.",
    NOT_PERMITTED: "Not permitted; the message says which role is missing.",
    CONFIGURATION: "The configuration is wrong; every problem is a line `file:line:column: message`.",
    INTERRUPTED: "Interrupted by Ctrl-C; a call under way was cancelled on the server as well.",
}
"""Every exit code there is, and when."""

_START = f"""# The command `ostler`

`ostler run` is the daemon; every other verb talks to it, or to its files. This page is made from the declarations of
the verbs (`python -m ostler.cli.reference > docs/cli.md`); a test fails when it is not up to date.

## For every verb

- `--root DIR`: the daemon below this folder, with its configuration in `DIR/etc`, state in `DIR/state` and sockets in
  `DIR/run`. Without it `OSTLER_ROOT` counts; without both root gets the system's places, and a user the XDG ones.
- `--json`: results as JSON on stdout (one line in a pipe, indented on a terminal), and errors as one object on stderr:
  `{{"error": {{"name": …, "message": …, "hint": …, "exit_code": …}}}}`.
- `--timeout TIME`: how long a call may take (`30`, `5min`, `2h`), 60 s by default. Only before the verb.
- `--address tcp://HOST:PORT`, `--server-key KEY|FILE`, `--secret-key FILE`: the daemon of another host, its public
  key, and the file of your own secret key (`ostler keys new`); or `OSTLER_ADDRESS`, `OSTLER_SERVER_KEY` and
  `OSTLER_SECRET_KEY`. Only before the verb. Verbs that need files of the daemon are refused.
- `--trust-owner` (or `OSTLER_TRUST_OWNER=1`): go on with files of others. Verbs that read the configuration or write
  files (`run`, `check`, `config`, `keys`, `plugin`) refuse directories and files that belong to, or can be written by,
  neither root nor whoever runs the command: a configuration names code that is run. Verbs that talk to a daemon, and
  `audit` while there is none, need no such trust.
- `--version`: show the version. Only before the verb.
- `-h`, `--help`: show help.

`--root`, `--json` and `--trust-owner` stand before the verb or after it, and belong to `ostler` wherever they stand;
what follows `--` is left alone.

## What is shown

On a terminal: tables, and a bar while a long call reports its progress. In a pipe, or on a terminal that can only
print lines (`TERM` unset or `dumb`): the same words as aligned plain text, without colours or boxes. A table without
rows is a sentence on a terminal and the bare header in a pipe. `NO_COLOR` is respected. Errors go to
stderr, as `ostler: message` and `hint:` lines; there is no traceback, unless `{TRACEBACK}` is set.

What services, other hosts, plugins and files say is never trusted with the terminal. Control characters, line breaks
in a name or reason, changes of the direction of writing, and what cannot be seen are shown as escapes (`\\x1b`, `\\n`,
`\\u202e`), and nothing is taken for markup. In JSON they are JSON's own escapes, so that a program reads what was
sent. A cell has at most 32,768 characters, a line of an error 4,000, and says how many there were; `--json` has all
of it. Problems that a daemon reports are set off by two spaces. This holds for verbs of plugins as well: stdout and
stderr are guarded while a verb runs, and are no terminal for libraries that would colour what they print.

## Exit codes

| code | when |
|---|---|
"""


def render() -> str:
    """Return the page as Markdown."""
    lines = [_START.rstrip("\n"), *(f"| {code} | {when} |" for code, when in EXIT_CODES.items()), "", "## Verbs", ""]
    lines += [f"- [`{name}`](#ostler-{name}): {verb.help}" for name, verb in VERBS.items()]
    lines += ["", "Plugins bring verbs of their own; `ostler --help` lists those that are installed.", ""]
    root = root_command()
    for name in VERBS:
        lines += _command(root.get_command(None, name), f"ostler {name}", 3)
    return "\n".join(lines).rstrip("\n") + "\n"


def _command(command: Any, path: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {path}"
    yield ""
    children = getattr(command, "commands", {})
    if not children:
        yield f"`{' '.join((path, *_usage(command)))}`"
        yield ""
    if command.help:
        yield cleandoc(command.help)
        yield ""
    rows = [row for parameter in command.params for row in _parameter(parameter)]
    if rows:
        yield from ("| | |", "|---|---|", *rows, "")
    for name, child in children.items():
        yield from _command(child, f"{path} {name}", depth + 1)


def _usage(command: Any) -> Iterator[str]:
    if any(parameter.param_type_name == "option" and parameter.name != "help" for parameter in command.params):
        yield "[OPTIONS]"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _metavar(parameter)
            yield name if parameter.required or name.startswith("[") else f"[{name}]"


def _parameter(parameter: Any) -> Iterator[str]:
    if parameter.param_type_name == "argument":
        yield f"| `{_metavar(parameter)}` | {parameter.help} |"
    elif parameter.name != "help":
        value = "" if parameter.is_flag else f" {_metavar(parameter)}"
        names = ", ".join(f"`{name}{value}`" for name in parameter.opts)
        required = " Required." if parameter.required else ""
        yield f"| {names} | {parameter.help}.{required} |"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


if __name__ == "__main__":
    sys.stdout.write(render())
