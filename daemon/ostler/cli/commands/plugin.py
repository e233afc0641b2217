"""`ostler plugin`: which plugins were found, which were loaded, and why the others were not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ostler.cli import kit, plugin_holds, plugin_show, without_daemon
from ostler.cli.plugin_installation import commands as plugin_install
from ostler.cli.results import AvailablePlugin, NewFiles
from ostler.config.units import format_seconds
from ostler.errors import EXIT_FAILURE, NotFound, join_words
from ostler.types import CONTROL_TOPIC, PluginStatus

app = kit.app(help="List, install and check plugins, show their API, create a new one.")
plugin_install.add_commands(app)

COLUMNS = [
    kit.Column("plugin", "name", priority=0),
    kit.Column("state", priority=0),
    kit.Column("version", priority=1),
    kit.Column("from", "distribution", priority=2),
    kit.Column("required", priority=4),
    kit.Column(
        "loaded in", lambda plugin: format_seconds(plugin.seconds, units=2) if plugin.seconds else "-", right=True
    ),
    kit.Column("hooks", lambda plugin: [hook.removeprefix("ostler_") for hook in plugin.hooks]),
    kit.Column("why", priority=0),
]


@app.command("list")
@kit.view
@kit.shows(PluginStatus, AvailablePlugin, many=True)
def list_plugins(
    available: Annotated[
        bool, typer.Option("--available", help="List packages that could be installed instead; needs no daemon")
    ] = False,
    places: plugin_install.From = None,
) -> None:
    """List every plugin that the daemon found.

    Shows its state with the reason, version, hooks, and how long it took to load. With --available: the packages named
    `ostler-…` in the indexes that pip is configured for, and in --from.
    """
    if available:
        plugin_install.show_available(places)
        return
    with kit.client() as client:
        plugins = client.on(type=list[PluginStatus]).call(CONTROL_TOPIC, "plugin_list")
    kit.show_table(plugins, COLUMNS, empty="No plugins are installed.")


@app.command()
@kit.shows("ostler.cli.plugin_check:PluginCheckResult", many=True)
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PLUGIN]...", help="The plugins; by default all that are installed")
    ] = None,
    level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="Check up to: loads, contract, conformance, faults, docs, typed"),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --level: a configuration for what needs options", show_default=False),
    ] = None,
) -> None:
    """Check plugins without a daemon.

    Imports each plugin, and checks its hooks, managers with their exposed methods, drivers and extensions against their
    contracts. With --level it reports each level: conformance and faults run the managers and drivers in this process,
    with virtual time, in health and with drivers that fail, crash and hang. The exit code is 1 if one has a fault.
    """
    from ostler.cli.plugin_check import check_plugins  # 70 ms: only for `plugin check`

    with without_daemon.suppress_logging():
        host = without_daemon.discover_plugins()
        found = check_plugins(host)
    known = [finding.plugin for finding in found]
    for name in names or []:
        if name not in known:
            raise NotFound(f"plugin {name} not found", hint=f"installed: {join_words(known) or 'none'}", plugin=name)
    chosen = [finding for finding in found if not names or finding.plugin in names]
    if level:
        plugin_show.check_levels(host, chosen, level, config)
        return
    if kit.json_wanted():
        kit.emit(chosen)
    for finding in chosen:
        kit.heading(kit.printable(f"{finding.plugin} {finding.version} {finding.state}".replace("  ", " ")))
        for line in finding.provides:
            kit.say(f"  {kit.printable(line)}")
        for line in finding.faults:
            kit.say(f"  wrong: {kit.printable(line)}")
    if any(finding.faults for finding in chosen):
        raise typer.Exit(EXIT_FAILURE)


app.command()(plugin_holds.enable)
app.command()(plugin_holds.disable)
app.command()(plugin_holds.reset)
app.command()(plugin_show.show)


@app.command()
@kit.shows(Any)
def api(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A manager or plugin; not needed when there is only one")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Write it to this file instead of stdout", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show the changes since this file was written", show_default=False),
    ] = None,
) -> None:
    """Show a manager's RPC interface, or what changed in it.

    Needs no daemon. Store a file with each release, and compare the next one with it in a test; see `check_rpc_api` of
    `ostler.testing`. With --against the exit code is 1 if the version does not reflect the changes.
    """
    from ostler.cli.plugin_api import find_interface, report_changes, write_interface  # 70 ms: only for `plugin api`

    with without_daemon.suppress_logging():
        interface = find_interface(without_daemon.discover_plugins(), name)
    if against is not None:
        faults = report_changes(interface, against)
        if faults:
            raise typer.Exit(EXIT_FAILURE)
    if output is not None or against is None:
        write_interface(interface, output)


@app.command()
@kit.shows(NewFiles)
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the plugin, its manager and its topic: lamp", show_default=False)
    ],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Create its directory in this one")] = Path(),
    drivers: Annotated[
        bool, typer.Option("--drivers/--no-drivers", help="With a contract of drivers, and a driver")
    ] = True,
    tables: Annotated[bool, typer.Option("--tables/--no-tables", help="With a table and its migration")] = False,
    commands: Annotated[bool, typer.Option("--commands/--no-commands", help="With sub-commands of `ostler`")] = True,
) -> None:
    """Create a new plugin.

    Writes a package that installs, and passes its tests, ruff and `mypy --strict` as it is: a manager, what the options
    ask for, a typed client, tests, a README and a file for continuous integration.
    """
    from ostler.cli.scaffold import PluginParts, write_plugin  # 3 ms: only for `plugin new`

    files = write_plugin(name, into, PluginParts(drivers, tables, commands))
    if kit.json_wanted():
        kit.emit(NewFiles(files=list(map(str, files))))
        return
    for file in files:
        kit.say(str(file))
    kit.say()
    kit.say(f"Next: cd {files[0].parent} && pip install --editable '.[dev]' && pytest")
