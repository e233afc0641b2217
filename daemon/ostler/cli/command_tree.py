"""The table of commands, from which only the one that is run is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

import ostler
from ostler.cli.global_options import RESERVED_OPTIONS
from ostler.cli.invocation import current_invocation
from ostler.cli.plugin_commands import PluginCommands
from ostler.cli.view import VIEW_ATTRIBUTE
from ostler.errors import EXIT_USAGE, InvalidInput, PluginError
from ostler.spelling import nearest

COMMON_OPTIONS_HELP = (
    "Every command also accepts the global options, such as --root DIR, -o json|yaml|wide|name, --json, --wide, "
    "--timeout TIME, -q and -v; see `ostler --help`."
)
_VIEW_HELP = "--watch[=TIME] shows it again and again."


_MAX_NAME_WIDTH = 20
"""The columns that names are filled to in the help: a plugin's may be long."""


class Command(NamedTuple):
    """A command: the module in `ostler.cli.commands` that has its typer `app`, and its line in `ostler --help`."""

    module: str
    help: str


COMMAND_GROUPS: dict[str, dict[str, Command]] = {
    "The daemon and its configuration": {
        "run": Command("run", "Run the daemon in the foreground until it is stopped"),
        "status": Command("status", "Show the daemon, services, drivers and problems"),
        "check": Command("check", "Check the configuration without a daemon"),
        "reload": Command("reload", "Reload the configuration of the daemon"),
        "config": Command("config", "Show, compare and change the configuration"),
        "db": Command("db", "Check, back up or restore the daemon's database"),
        "keys": Command("keys", "Create and show the keys of hosts and clients"),
        "token": Command("token", "Create, list and revoke tokens for callers over HTTP"),
    },
    "Services and plugins": {
        "service": Command("service", "List, show, enable, disable, freeze, drain and delete services"),
        "driver": Command("driver", "List, show, restart, reset and abandon drivers"),
        "periodic": Command("periodic", "List, show, run, pause and resume periodic tasks"),
        "handler": Command("handler", "List event handlers: what they follow, and their errors"),
        "lock": Command("lock", "List locks: who holds them, and who waits"),
        "plugin": Command("plugin", "List and check plugins, or create a new one"),
    },
    "Calls, operations and events": {
        "call": Command("call", "Call a method of a service and show its result"),
        "cast": Command("cast", "Send a request to a service without waiting for the result"),
        "submit": Command("submit", "Submit an operation, which survives the daemon"),
        "operation": Command("operation", "List, show, watch, cancel and retry operations"),
        "describe": Command("describe", "Show the methods of a service and their arguments"),
        "events": Command("events", "Follow events, one line each"),
    },
    "What happened, and what happens now": {
        "log": Command("log", "Show or follow the log of the daemon"),
        "logs": Command("logs", "The same as `log`"),
        "log-level": Command("log_level", "Show or set the log levels of the daemon"),
        "top": Command("top", "Show calls per method, live"),
        "metrics": Command("metrics", "Show what was counted, also in the format of Prometheus"),
        "audit": Command("audit", "Show the audit log: who did what, and what was refused"),
        "dump": Command("dump", "Show threads, tasks, requests, queues, services, versions"),
        "console": Command("console", "Open a Python prompt on the event loop of the daemon"),
    },
    "This command": {
        "whoami": Command("whoami", "Show who the daemon takes you for, and your role"),
        "version": Command("version", "Show the versions of this command and of the daemon"),
        "completion": Command("completion", "Print the script with which a shell completes `ostler`"),
        "help": Command("help", "Show the help of a command, or the schema of its output"),
    },
}
"""The commands by what they are for, as `ostler --help` shows them."""
COMMANDS: dict[str, Command] = {name: command for group in COMMAND_GROUPS.values() for name, command in group.items()}


class RootGroup(TyperGroup):
    """The command `ostler`, whose sub-commands are imported when they are run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._plugin_commands = PluginCommands(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, those of plugins last."""
        return [*COMMANDS, *self._plugin_commands.names()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command and return it; None if there is no such command."""
        verb = COMMANDS.get(cmd_name)
        app = import_module(f"ostler.cli.commands.{verb.module}").app if verb else self._plugin_commands.load(cmd_name)
        return None if app is None else _normalise_command(typer.main.get_command(app))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that was typed, or suggest a similar one."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            meant = f"; did you mean `ostler {near}`?" if near else ""
            ctx.fail(f"unknown command {args[0]}{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their lines from the table, without importing any."""
        width = min(max(map(len, self.list_commands(ctx))), _MAX_NAME_WIDTH)
        for title, commands in COMMAND_GROUPS.items():
            with formatter.section(title):
                # As wide as the widest of all: the columns of the groups stand below each other.
                formatter.write_dl([(name.ljust(width), verb.help) for name, verb in commands.items()])
        brought = self._plugin_commands.help_lines()
        if brought:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name.ljust(width), text) for name, text in brought])


def _normalise_command(command: Any) -> Any:
    # An app that a plugin made with a bare `typer.Typer()` then behaves as Ostler's own commands do.
    command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
    command.rich_markup_mode = None
    is_view = getattr(command.callback, VIEW_ATTRIBUTE, False)
    command.epilog = command.epilog or (f"{_VIEW_HELP} {COMMON_OPTIONS_HELP}" if is_view else COMMON_OPTIONS_HELP)
    _check_reserved_options(command)
    for child in getattr(command, "commands", {}).values():
        _normalise_command(child)
    if current_invocation().output.watch and not is_view and not hasattr(command, "commands"):
        command.callback = _refuse_watch
    return command


def _check_reserved_options(command: Any) -> None:
    """Refuse a command with an option that is parsed before any command: it would never see it.

    Raises:
        PluginError: It has one.
    """
    taken = sorted({name for each in command.params for name in each.opts} & RESERVED_OPTIONS)
    if taken:
        raise PluginError(
            f"the command {command.name} declares {', '.join(taken)}, which belongs to every command of ostler",
            hint="choose another name for the option",
            verb=command.name,
        )


def _refuse_watch(*_arguments: object, **_options: object) -> None:
    raise InvalidInput("--watch is for commands that show something and change nothing", hint="leave it out")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ostler {ostler.__version__}")  # noqa: T201 - the command's output
        raise typer.Exit


def _refuse_token(token: str) -> None:
    if token:
        raise InvalidInput(
            "a token must not be on a command line, where other users can read it",
            hint="write it to a file, and give --token-file FILE",
        )


_Address = Annotated[
    str, typer.Option(metavar="ADDR", help="The daemon at tcp://HOST:PORT or https://HOST:PORT/v1 (or OSTLER_ADDRESS)")
]
_ServerKey = Annotated[
    str, typer.Option(metavar="KEY|FILE", help="The public key of a tcp:// address (or OSTLER_SERVER_KEY)")
]
_SecretKey = Annotated[
    str, typer.Option(metavar="FILE", help="Your own secret key for it (or OSTLER_SECRET_KEY); see `ostler keys new`")
]
_TokenFile = Annotated[
    str, typer.Option(metavar="FILE", help="Your token for https:// (or OSTLER_TOKEN_FILE); see `ostler token new`")
]
_CaFile = Annotated[
    str, typer.Option(metavar="FILE", help="The authorities that may have signed its certificate (or OSTLER_CA_FILE)")
]
_Certificate = Annotated[
    str, typer.Option(metavar="FILE", help="Your own certificate for https:// (or OSTLER_CERTIFICATE)")
]
_CertificateKey = Annotated[
    str, typer.Option(metavar="FILE", help="The key of your own certificate (or OSTLER_CERTIFICATE_KEY)")
]
_Token = Annotated[str, typer.Option(hidden=True, is_eager=True, callback=_refuse_token)]


def _root_callback(  # noqa: PLR0913, PLR0917 - `global_options.split_global_options` has the values: this is for help and errors
    context: typer.Context,
    root: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="The daemon below this directory (or OSTLER_ROOT): DIR/etc, DIR/state, DIR/run"
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FORMAT", help="Show results as json, yaml, wide (all columns) or name"),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Show results and errors as JSON: -o json")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Show all columns in full: -o wide")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every 2s, or with --watch=TIME, until Ctrl-C")
    ] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Show tables without titles")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (or NO_COLOR)")] = False,
    no_pager: Annotated[bool, typer.Option("--no-pager", help="No pager (else OSTLER_PAGER, PAGER or less)")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No confirmations and no progress")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Report each call on stderr")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Time-out of a call: 30, 5min, 2h")] = "",
    address: _Address = "",
    server_key: _ServerKey = "",
    secret_key: _SecretKey = "",
    token_file: _TokenFile = "",
    ca_file: _CaFile = "",
    certificate: _Certificate = "",
    certificate_key: _CertificateKey = "",
    token: _Token = "",
    trust_owner: Annotated[
        bool,
        typer.Option("--trust-owner", help="Accept files that other users own or can write (or OSTLER_TRUST_OWNER=1)"),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del root, output, json, wide, watch, no_headers, no_color, no_pager, quiet, verbose, timeout
    del address, server_key, secret_key, token_file, ca_file, certificate, certificate_key, token, trust_owner, version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(EXIT_USAGE)


def root_command() -> Any:
    """Return the command `ostler` with all its sub-commands."""
    app = typer.Typer(
        cls=RootGroup,
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Ostler manages the resources of this host: `ostler run` is the daemon, every other command talks to it.",
        epilog=(
            "All but --version are also accepted after the command. Exit codes: 0 success, 1 failure, "
            "2 usage, 3 not running, 4 not permitted, 78 configuration, 130 interrupted."
        ),
    )
    app.callback()(_root_callback)
    return typer.main.get_command(app)
