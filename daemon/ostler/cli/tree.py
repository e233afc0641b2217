"""The tree of verbs: a table of what there is, so that only the verb that was typed is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

import ostler
from ostler.cli.plugin_verbs import PluginVerbs
from ostler.errors import USAGE
from ostler.spelling import nearest

EVERYWHERE = "Every verb also takes --root DIR, --json and --trust-owner."


class Verb(NamedTuple):
    """One verb: the module in `ostler.cli.verbs` that has its typer `app`, and its line in `ostler --help`."""

    module: str
    help: str


VERBS: dict[str, Verb] = {
    "run": Verb("run", "Be the daemon, in the foreground, until it is stopped"),
    "status": Verb("status", "Show the daemon, services and drivers, what is not well"),
    "check": Verb("check", "Check the configuration without a daemon"),
    "reload": Verb("reload", "Have the daemon read its configuration again"),
    "config": Verb("config", "Show the configuration with the origin of each value"),
    "service": Verb("service", "List, show, enable, disable, drain and forget services"),
    "plugin": Verb("plugin", "List and check plugins, or begin a new one"),
    "call": Verb("call", "Call a method of a service and show its result"),
    "cast": Verb("cast", "Hand a request to a service, wait for no result"),
    "describe": Verb("describe", "Show which methods a service has, what they take"),
    "events": Verb("events", "Follow events, one line each"),
    "periodic": Verb("periodic", "List periodic tasks, run one now, pause, resume"),
    "top": Verb("top", "Show what the services are busy with, live"),
    "audit": Verb("audit", "Show who did what, and what was refused"),
    "log-level": Verb("log_level", "Show or set how much the daemon logs"),
    "dump": Verb("dump", "Show threads, tasks, queues, services, configuration"),
    "keys": Verb("keys", "Make and show the keys by which hosts know each other"),
    "db": Verb("db", "Check or back up the daemon's database"),
}


class RootGroup(TyperGroup):
    """The command `ostler`, whose verbs are imported when they are typed."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._plugins = PluginVerbs(VERBS)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs, plugins' verbs last."""
        return [*VERBS, *self._plugins.names()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a verb and return its command; None when there is no such verb."""
        verb = VERBS.get(cmd_name)
        app = import_module(f"ostler.cli.verbs.{verb.module}").app if verb else self._plugins.load(cmd_name)
        return None if app is None else _plain(typer.main.get_command(app))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that was typed, or say which one may have been meant."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            meant = f"; did you mean `ostler {near}`?" if near else ""
            ctx.fail(f"there is no verb {args[0]}{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs with their lines, from the table, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])
        brought = self._plugins.lines()
        if brought:
            with formatter.section("Verbs of plugins"):
                formatter.write_dl(brought)


def _plain(command: Any) -> Any:
    # What a plugin made with a bare `typer.Typer()` behaves as our own verbs do.
    command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
    command.rich_markup_mode = None
    command.epilog = command.epilog or EVERYWHERE
    for child in getattr(command, "commands", {}).values():
        _plain(child)
    return command


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ostler {ostler.__version__}")  # noqa: T201 - the command's output
        raise typer.Exit


def _root(  # noqa: PLR0913, PLR0917 - `arguments.take_apart` has read the values: this is for help and for mistakes
    context: typer.Context,
    root: Annotated[
        str,
        typer.Option(metavar="DIR", help="The daemon below this folder (or OSTLER_ROOT): DIR/etc, DIR/state, DIR/run"),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Show results, and errors, as JSON")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long a call may take: 30, 5min, 2h")] = "",
    address: Annotated[
        str, typer.Option(metavar="ADDR", help="The daemon at tcp://HOST:PORT (or OSTLER_ADDRESS)")
    ] = "",
    server_key: Annotated[
        str, typer.Option(metavar="KEY|FILE", help="Its public key there (or OSTLER_SERVER_KEY)")
    ] = "",
    secret_key: Annotated[
        str,
        typer.Option(metavar="FILE", help="Your own secret key (or OSTLER_SECRET_KEY); see `ostler keys new`"),
    ] = "",
    trust_owner: Annotated[
        bool,
        typer.Option("--trust-owner", help="Go on with files that others own or can write (or OSTLER_TRUST_OWNER=1)"),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit", is_eager=True, callback=_version)
    ] = False,
) -> None:
    del root, json, timeout, address, server_key, secret_key, trust_owner, version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USAGE)


def root_command() -> Any:
    """Return the command `ostler` with all its verbs."""
    app = typer.Typer(
        cls=RootGroup,
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Ostler looks after what lives on this host: `ostler run` is the daemon, every other verb talks to it.",
        epilog=(
            "--root, --json and --trust-owner may also stand after the verb. Exit codes: 0 done, 1 failed, 2 usage, "
            "3 not running, 4 not permitted, 78 configuration, 130 interrupted."
        ),
    )
    app.callback()(_root)
    return typer.main.get_command(app)
