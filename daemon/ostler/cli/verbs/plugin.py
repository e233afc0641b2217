"""`ostler plugin`: what was found, what of it was loaded, and why not the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli import kit, offline
from ostler.config.units import format_seconds
from ostler.errors import FAILED, NotFound, joined
from ostler.types import CONTROL_TOPIC, PluginStatus

app = kit.app(help="List plugins, check them, write down their API, begin a new one.")

COLUMNS = [
    kit.Column("plugin", "name"),
    kit.Column("state"),
    kit.Column("version"),
    kit.Column("from", "distribution"),
    kit.Column("required"),
    kit.Column(
        "loaded in", lambda plugin: format_seconds(plugin.seconds, units=2) if plugin.seconds else "-", right=True
    ),
    kit.Column("hooks", lambda plugin: [hook.removeprefix("ostler_") for hook in plugin.hooks]),
    kit.Column("why"),
]


@app.command("list")
def list_plugins() -> None:
    """List every plugin that the daemon found.

    With its state and why, version, hooks, and how long it took to load.
    """
    with kit.client() as client:
        plugins = client.on(type=list[PluginStatus]).call(CONTROL_TOPIC, "plugin_list")
    kit.show_table(plugins, COLUMNS, empty="No plugins are installed.")


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PLUGIN]...", help="Which; all that are installed without any")
    ] = None,
) -> None:
    """Check plugins without a daemon.

    Imports each plugin, and looks whether its hooks, managers with their exposed methods, drivers and extensions
    fulfil what is demanded of them. The exit code is 1 when one does not.
    """
    from ostler.cli.inspection import examine

    with offline.quiet():
        found = examine(offline.plugins())
    known = [finding.plugin for finding in found]
    for name in names or []:
        if name not in known:
            raise NotFound(f"no plugin {name} is installed", hint=f"there are: {joined(known)}", plugin=name)
    chosen = [finding for finding in found if not names or finding.plugin in names]
    if kit.json_wanted():
        kit.emit(chosen)
    for finding in chosen:
        kit.heading(kit.printable(f"{finding.plugin} {finding.version} {finding.state}".replace("  ", " ")))
        for line in finding.brings:
            kit.say(f"  {kit.printable(line)}")
        for line in finding.faults:
            kit.say(f"  wrong: {kit.printable(line)}")
    if any(finding.faults for finding in chosen):
        raise typer.Exit(FAILED)


@app.command()
def api(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A manager or plugin; not needed when there is only one")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it to this file and not to the screen", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Say what changed since this one was written", show_default=False),
    ] = None,
) -> None:
    """Write down a manager's RPC interface, or what changed in it.

    Needs no daemon. Keep a file with each release, and have a test compare the next one with it; see `check_rpc_api` of
    `ostler.testing`. With --against the exit code is 1 when the version does not say what has changed.
    """
    from ostler.cli.interfaces import find, report, write

    with offline.quiet():
        interface = find(offline.plugins(), name)
    if against is not None:
        faults = report(interface, against)
        if faults:
            raise typer.Exit(FAILED)
    if output is not None or against is None:
        write(interface, output)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Its name, and that of its manager and topic: lamp", show_default=False)],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Make its folder in this one")] = Path(),
) -> None:
    """Begin a plugin of your own.

    Writes a package that works as it is: a manager, a driver contract with a driver, a verb, and a test.
    """
    from ostler.cli.skeleton import write

    files = write(name, into)
    if kit.json_wanted():
        kit.emit({"files": files})
        return
    for file in files:
        kit.say(str(file))
    kit.say()
    kit.say(f"Go on with: cd {files[0].parent} && pip install --editable '.[dev]' && pytest")
