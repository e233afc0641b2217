"""Generates `docs/cli.md` from the declarations of the commands: `python -m ostler.cli.reference > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from ostler.cli.command_tree import COMMAND_GROUPS, COMMANDS, root_command
from ostler.cli.error_output import EXIT_INTERRUPTED, TRACEBACK_VARIABLE
from ostler.errors import EXIT_CONFIGURATION, EXIT_FAILURE, EXIT_NOT_PERMITTED, EXIT_NOT_RUNNING, EXIT_OK, EXIT_USAGE

EXIT_CODES = {
    EXIT_OK: "Success; also if the reader of a pipe, such as `head`, has closed it.",
    EXIT_FAILURE: "Failure; or `--check` found a problem.",
    EXIT_USAGE: "Usage error: an invalid command, option, argument or value.",
    EXIT_NOT_RUNNING: "The daemon is not running; the hint says how to start it.",
    EXIT_NOT_PERMITTED: "Not permitted; the message says which role is missing.",
    EXIT_CONFIGURATION: "The configuration is invalid; every problem is a line `file:line:column: message`.",
    EXIT_INTERRUPTED: "Interrupted by Ctrl-C; a call in progress was cancelled on the server as well.",
}
"""All exit codes, and when they are returned."""

_PAGE_HEADER = f"""# The command `ostler`

`ostler run` is the daemon; every other command talks to it, or reads its files. This page is generated from the
declarations of the commands (`python -m ostler.cli.reference > docs/cli.md`); a test fails if it is out of date.

## Global options

- `--root DIR`: the daemon below this directory, with its configuration in `DIR/etc`, state in `DIR/state` and sockets
  in `DIR/run`. The default is `OSTLER_ROOT`; without both, root uses the system's directories and a user those of XDG.
- `-o FORMAT`, `--output FORMAT`: `json`, `yaml`, `wide` (tables with all columns in full) or `name` (names alone, one
  line each, as arguments of other commands take them). `--json` is `-o json`, `--wide` is `-o wide`.
- `--json`: results as JSON on stdout (one line in a pipe, indented on a terminal; see [json.md](json.md)), and
  errors as one object on stderr:
  `{{"error": {{"name": …, "message": …, "hint": …, "exit_code": …}}}}`.
- `--timeout TIME`: the time-out of a call (`30`, `5min`, `2h`), 1min by default; of a stream, that of each item.
- `--address tcp://HOST:PORT`, `--server-key KEY|FILE`, `--secret-key FILE`: the daemon of another host, its public
  key, and the file of your own secret key (`ostler keys new`); or `OSTLER_ADDRESS`, `OSTLER_SERVER_KEY` and
  `OSTLER_SECRET_KEY`. Commands that need files of the daemon are refused.
- `--address https://HOST:PORT/v1`, `--token-file FILE`, `--ca-file FILE`, `--certificate FILE`,
  `--certificate-key FILE`: a daemon by its REST API, with your token or certificate; or `OSTLER_ADDRESS`,
  `OSTLER_TOKEN_FILE`, `OSTLER_CA_FILE`, `OSTLER_CERTIFICATE` and `OSTLER_CERTIFICATE_KEY`. See
  [http.md](http.md#from-the-command-line).
- `--watch`, `--watch=TIME`: show it again every 2s, or TIME, until Ctrl-C: for commands that show something and change
  nothing. A terminal shows the newest output; elsewhere outputs are appended, with `--json` one line each. An error
  after the first output is shown, and it is tried again.
- `-q`, `--quiet`: no confirmations, remarks and progress; results and errors are shown.
- `-v`, `--verbose`: report each call on stderr, with its time.
- `--no-headers`, `--no-color`, `--no-pager`: tables without titles, no colours, no pager.
- `--trust-owner` (or `OSTLER_TRUST_OWNER=1`): accept files of other users. Commands that read the configuration or
  write files (`run`, `check`, `config`, `keys`, `plugin`) refuse directories and files that users other than root and
  you own or can write: a configuration names code that is run. Commands that talk to a daemon, and `audit` while no
  daemon is running, do not check this.
- `--version`: show the version. Only before the command.
- `-h`, `--help`: show help.

All but `--version` are accepted before and after the command, and no command has an option of the same name; arguments
after `--` are not parsed as options.

## Output

On a terminal: tables, and a bar for whatever takes longer than a second or reports its progress, with how much is done,
the rate and the time left. A table never folds: when it is wider than the terminal,
texts end in an ellipsis and the least important columns are left out; a line below says so, and
`--wide` shows all. More lines than the terminal has are shown in a pager (`OSTLER_PAGER`, `PAGER` or `less -FRX`; `cat`
or an empty value turns it off). In a pipe, or on a terminal that can
only print lines (`TERM` unset or `dumb`): the same text, aligned, without colours, with all columns in full.
A table without rows is a sentence on a terminal and the header alone in a pipe. `NO_COLOR` turns colours off.
Errors go to stderr, as `ostler: message` and `hint:` lines, without a traceback unless `{TRACEBACK_VARIABLE}` is set.

Text from services, other hosts, plugins and files cannot control the terminal. Control characters, line breaks in a
name or reason, changes of the writing direction and invisible characters are shown as escapes (`\\x1b`, `\\n`,
`\\u202e`), and nothing is interpreted as markup. In JSON they are JSON escapes, so that a program reads the original
text. A cell is cut to 32,768 characters and a line of an error to 4,000, with the number of characters that there
were; `--json` is not cut. Problems that a daemon reports are indented by two spaces. This holds for the commands of
plugins as well: stdout and stderr are filtered while a command runs, and do not report to be a terminal, so that
libraries do not colour their output.

Moments are local time to the second (`2027-01-15 09:00:00`), `-` for never; time spans have units (`5min 3s`, `250ms`).
For programs see [json.md](json.md).

Commands that destroy what no other command brings back (`volume delete`, `volume forget`, `volume snapshot delete`,
`service delete`, `operation prune`, `plugin remove`, `db restore`, `keys new --force`) ask on a terminal; any answer
but `y` or `yes` ends them with exit code 1 and changes nothing. `--yes` never asks. If stdin is not a terminal, as in
scripts, timers and pipes, nothing is asked and they go on.

## Exit codes

| code | meaning |
|---|---|
"""


def render() -> str:
    """Return the page as Markdown."""
    lines = [
        _PAGE_HEADER.rstrip("\n"),
        *(f"| {code} | {when} |" for code, when in EXIT_CODES.items()),
        "",
        "## Commands",
        "",
    ]
    for title, commands in COMMAND_GROUPS.items():
        lines += [f"{title}:", ""]
        lines += [*(f"- [`{name}`](#ostler-{name}): {verb.help}" for name, verb in commands.items()), ""]
    lines += ["Plugins provide further commands; `ostler --help` lists those that are installed.", ""]
    root = root_command()
    for name in COMMANDS:
        lines += _command_section(root.get_command(None, name), f"ostler {name}", 3)
    return "\n".join(lines).rstrip("\n") + "\n"


def _command_section(command: Any, path: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {path}"
    yield ""
    children = getattr(command, "commands", {})
    if not children:
        yield f"`{' '.join((path, *_usage_words(command)))}`"
        yield ""
    if command.help:
        yield cleandoc(command.help)
        yield ""
    rows = [row for parameter in command.params for row in _parameter_rows(parameter)]
    if rows:
        yield from ("| | |", "|---|---|", *rows, "")
    for name, child in children.items():
        yield from _command_section(child, f"{path} {name}", depth + 1)


def _usage_words(command: Any) -> Iterator[str]:
    if any(parameter.param_type_name == "option" and parameter.name != "help" for parameter in command.params):
        yield "[OPTIONS]"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _metavar(parameter)
            yield name if parameter.required or name.startswith("[") else f"[{name}]"


def _parameter_rows(parameter: Any) -> Iterator[str]:
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
