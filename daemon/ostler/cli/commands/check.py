"""`ostler check`: validates the configuration without a daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import invocation, kit, without_daemon
from ostler.daemon.load_configuration import log_target_warning
from ostler.types import PluginState

app = kit.app(group=False)


@app.command()
def check(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A value that overrides the files; may be repeated"),
    ] = None,
) -> None:
    """Check the whole configuration without a daemon, and report all problems.

    It finds what `ostler run` by the same user would refuse. Plugins are imported, and their sections, services and
    drivers are checked: every problem is a line `file:line:column: message`, and the exit code is 78. If the
    configuration is valid, the directories, the database and its migrations are checked, without changing them and also
    while a daemon runs; the exit code is 1 if a daemon could not start.
    """
    paths = invocation.current_invocation().paths()
    assembly = without_daemon.resolve_start(overrides or [])
    found = assembly.configuration
    failed = [plugin for plugin in assembly.plugins.statuses() if plugin.state is PluginState.FAILED]
    warnings = [*assembly.warnings, *(f"plugin {plugin.name} failed: {plugin.why}" for plugin in failed)]
    services = sorted(found.services)
    drivers = [f"{topic}/{name}" for topic, name in sorted(found.drivers)]
    if kit.json_wanted():
        masked = [{"file": file, "by": mask} for file, mask in found.raw.masked.items()]
        kit.emit({"ok": True, "services": services, "drivers": drivers, "warnings": warnings, "masked": masked})
        return
    for warning in warnings:
        kit.warn(kit.printable(f"warning: {warning}"))
    kit.say(f"The configuration is valid: {', '.join(map(str, paths.config_layers))}")
    where = log_target_warning(found.log.format) or found.log.format
    for file, mask in found.raw.masked.items():
        kit.say(kit.printable(f"{file} is masked by {mask}"))
    kit.show_fields({"services": services, "drivers": drivers, "log": where})
