"""Public: what verbs, and the sub-commands of plugins, are made with.

A plugin's sub-command is a typer app, named in the entry-point group `ostler.commands`:

    app = kit.app(help="Look after lamps")

    @app.command("list")
    def list_lamps() -> None:
        '''List the lamps.'''
        with kit.client() as client:
            kit.show_table(client.on(type=list[Lamp]).call("lamp", "list"), ["name", "on", "brightness"])

`--root`, `--json` and `--timeout` belong to `ostler` itself; `client` and the `show_…` functions follow them. An error
of Ostler or of the plugin is raised, not printed: the command shows it as one line with its hint, and its exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ostler.cli import session
from ostler.cli.output import (
    Column,
    emit,
    heading,
    json_wanted,
    on_terminal,
    say,
    show_fields,
    show_table,
    to_json,
    warn,
)
from ostler.cli.progress import progress
from ostler.cli.words import age_at, human_time, printable, text_of
from ostler.errors import InvalidInput

if TYPE_CHECKING:
    import typer

    from ostler.messaging.client import Client
    from ostler.types import Json

__all__ = [
    "Column", "app", "client", "confirm", "emit", "heading", "human_age", "human_elapsed", "human_time",
    "json_wanted", "on_terminal", "pairs", "printable", "progress", "say", "show_fields", "show_table", "text_of",
    "to_json", "warn",
]  # fmt: skip


def app(help: str = "", *, group: bool = True, **options: Any) -> typer.Typer:  # noqa: A002 - typer's own name for it
    """Return a typer app that behaves as the verbs of `ostler` do: plain help, no completion options.

    Args:
        help: One line; shown above the sub-commands.
        group: Whether its commands are sub-commands, also when there is only one; otherwise one command is the verb.
        options: Further arguments of `typer.Typer`.
    """
    import typer

    made = typer.Typer(
        help=help,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )
    if group:
        made.callback()(_nothing)  # typer would make a lone sub-command the verb itself
    return made


def _nothing() -> None:
    pass


def human_age(moment: float) -> str:
    """Return how long a wall time is ago (`5min 3s`), or is to come (`in 30s`); `-` for 0, which means never.

    Args:
        moment: Seconds since 1970.
    """
    return age_at(moment, session.current().now())


def human_elapsed(moment: float) -> str:
    """Return how long something is so since a wall time (`5min 3s`); never below zero, `-` for 0, which means never.

    Args:
        moment: Seconds since 1970.
    """
    now = session.current().now()
    return age_at(min(moment, now), now)


@contextmanager
def client(timeout: float | None = None, *, lenient: bool = False) -> Iterator[Client]:
    """Open a client of the daemon that `--root` or `--address` chose, and close it at the end of the block.

    Args:
        timeout: Seconds that a call may take unless `--timeout` was given; 60 by default.
        lenient: Whether texts may stand for numbers, booleans and structures; for arguments as they were typed.

    Raises:
        NotRunning: Nobody listens there.
        NotPermitted: This user may not open the socket.
    """
    chosen = session.current()
    seconds = chosen.timeout if chosen.timeout is not None else timeout
    where = chosen.remote or chosen.root
    with chosen.connect(where, session.DEFAULT_TIMEOUT if seconds is None else seconds, lenient) as opened:
        yield cast("Client", opened)  # in tests a fake that stands for it


def confirm(question: str, *, yes: bool = False) -> None:
    """Ask before something that cannot be taken back; returns when the answer is yes.

    Args:
        question: Without a question mark: `delete volume a`.
        yes: The value of the verb's `--yes`: whether the answer was given already.

    Raises:
        InvalidInput: The answer was no, or nobody can be asked because stdin is not a terminal.
    """
    if yes:
        return
    if not sys.stdin or not sys.stdin.isatty():
        raise InvalidInput(f"not done without being asked: {question}", hint="say `--yes` where nobody can answer")
    print(f"{printable(question)}? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - the question
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidInput(f"not done: {question}")


def pairs(arguments: Iterable[str]) -> dict[str, Json]:
    """Return `key=value` arguments as a dictionary; a value that is JSON is decoded, any other is text.

    Args:
        arguments: For instance `["name=a", "size=10", 'tags=["x"]', "lit=true"]`.

    Raises:
        InvalidInput: One is not `key=value`, or a key comes twice.
    """
    import msgspec

    found: dict[str, Json] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidInput(f"{argument} is not key=value", hint="write for instance name=lamp size=10")
        if key in found:
            raise InvalidInput(f"{key} is given twice")
        try:
            found[key] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found[key] = text
    return found
