"""Public: the functions that the commands of Ostler and of plugins are built with.

A plugin's command is a typer app, named in the entry-point group `ostler.commands`:

    app = kit.app(help="Manage lamps")

    @app.command("list")
    def list_lamps() -> None:
        '''List the lamps.'''
        with kit.client() as client:
            kit.show_table(client.on(type=list[Lamp]).call("lamp", "list"), ["name", "on", "brightness"])

`--root`, `--json` and `--timeout` belong to `ostler` itself; `client` and the `show_…` functions obey them. Raise
errors of Ostler or of the plugin, do not print them: the command shows an error as one line with its hint, and exits
with its exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ostler.cli import invocation
from ostler.cli.confirmation import ask, confirm, count_of
from ostler.cli.formatting import format_age, human_time, printable, text_of
from ostler.cli.output import (
    confirm_done,
    emit,
    emit_item,
    heading,
    is_quiet,
    json_wanted,
    names_wanted,
    on_terminal,
    say,
    show_fields,
    show_table,
    to_json,
    warn,
)
from ostler.cli.progress_bar import progress
from ostler.cli.shown_types import shows
from ostler.cli.table import Column
from ostler.cli.view import view
from ostler.errors import InvalidInput
from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
    import typer

    from ostler.cli.yes_option import YesOption
    from ostler.messaging.clients.call_methods import ClientView
    from ostler.messaging.clients.sync_client import Client
    from ostler.types import Json

__all__ = [
    "Column", "YesOption", "app", "ask", "client", "confirm", "confirm_done", "count_of", "emit", "emit_item",
    "heading", "human_age", "human_elapsed", "human_time", "is_quiet", "json_wanted", "names_wanted", "on_terminal",
    "pairs", "printable", "progress", "run_operation", "say", "show_fields", "show_table", "shows", "text_of",
    "to_json", "view", "warn",
]  # fmt: skip


__getattr__ = lazy_names(__name__, {"YesOption": "yes_option"}, below="ostler.cli")  # typer: not for `ostler status`


def app(help: str = "", *, group: bool = True, **options: Any) -> typer.Typer:  # noqa: A002 - typer's name
    """Return a typer app that behaves as the commands of `ostler` do: plain help, no completion options.

    Args:
        help: One line, shown above the sub-commands.
        group: Whether its commands are sub-commands, even if there is only one; otherwise a single command is run
            without a name of its own.
        options: Further arguments of `typer.Typer`.
    """
    import typer  # 40 ms: not for `ostler status`

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
        made.callback()(_no_op)  # typer would merge a single sub-command into its parent
    return made


def _no_op() -> None:
    pass


def human_age(moment: float) -> str:
    """Return how long ago a wall time was (`5min 3s`), or how far ahead it is (`in 30s`); `-` for 0 (never).

    Args:
        moment: Seconds since 1970.
    """
    return format_age(moment, invocation.current_invocation().now())


def human_elapsed(moment: float) -> str:
    """Return the time elapsed since a wall time (`5min 3s`), not below zero; `-` for 0 (never).

    Args:
        moment: Seconds since 1970.
    """
    now = invocation.current_invocation().now()
    return format_age(min(moment, now), now)


def run_operation(client: Client | ClientView, topic: str, method: str, label: str, /, **arguments: Any) -> Any:
    """Submit an operation, wait for its end and return its result, with a progress bar on a terminal.

    Unlike a call it survives a restart of the daemon, for which it waits. Ctrl-C cancels it, and it ends within the
    `--timeout` that was given.

    Args:
        client: The client, or a view of it with other options (`client.on(type=Volume)`).
        topic: The service.
        method: The method.
        label: What is done, for the progress bar.
        arguments: The arguments of the method.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        OstlerError: It was not accepted, or what it ended with.
    """
    from ostler.cli.operation_output import wait_or_cancel  # which imports this module

    timeout = invocation.current_invocation().timeout
    if timeout is not None:
        client = client.on(time_limit=timeout)
    return wait_or_cancel(client.submit(topic, method, **arguments), label)


@contextmanager
def client(timeout: float | None = None, *, lenient: bool = False) -> Iterator[Client]:
    """Open a client of the daemon that `--root` or `--address` chose, and close it at the end of the block.

    Args:
        timeout: Time-out of a call in seconds unless `--timeout` was given; 60 by default.
        lenient: Whether texts are accepted for numbers, booleans and structures, for arguments as they were typed.

    Raises:
        DaemonNotRunning: No daemon is listening there.
        NotPermitted: This user must not open the socket.
    """
    chosen = invocation.current_invocation()
    seconds = chosen.timeout if chosen.timeout is not None else timeout
    where = chosen.remote or chosen.root
    with chosen.connect(where, invocation.DEFAULT_TIMEOUT if seconds is None else seconds, lenient) as opened:
        if chosen.output.verbose:
            from ostler.cli.traced_client import TracedClient  # only with `--verbose`

            warn(f"connected to the daemon at {getattr(where, 'address', where) or 'the default place'}")
            yield cast("Client", TracedClient(opened))
        else:
            yield cast("Client", opened)  # in tests a fake


def pairs(arguments: Iterable[str]) -> dict[str, Json]:
    """Return `key=value` arguments as a dictionary; a value that is valid JSON is decoded, any other is text.

    Args:
        arguments: For instance `["name=a", "size=10", 'tags=["x"]', "lit=true"]`.

    Raises:
        InvalidInput: An argument is not `key=value`, or a key is given twice.
    """
    import msgspec  # 6 ms: not for `--help`

    found: dict[str, Json] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidInput(f"{argument} is not key=value", hint="for example name=lamp size=10")
        if key in found:
            raise InvalidInput(f"{key} is given twice")
        try:
            found[key] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found[key] = text
    return found
