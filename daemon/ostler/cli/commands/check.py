"""`ostler check`: validates the configuration without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ostler.cli import invocation, kit, without_daemon
from ostler.daemon.load_configuration import log_target_warning
from ostler.errors import EXIT_FAILURE
from ostler.types import PluginState

if TYPE_CHECKING:
    from ostler.cli.driver_probes import DriverProbe
    from ostler.service.resolve import ResolvedConfiguration

app = kit.app(group=False)

PROBE_COLUMNS = [
    kit.Column("driver", lambda found: f"{found.service}/{found.driver}"),
    kit.Column("probe", "state"),
    kit.Column("why", lambda found: "; ".join(found.reasons)),
]


@app.command()
def check(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="A value that overrides the files; may be repeated"),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Ask each driver whether it could work on this host")] = False,
    probe_timeout: Annotated[
        float, typer.Option("--probe-timeout", metavar="SECONDS", min=0.1, help="Time limit of each driver")
    ] = 10.0,
) -> None:
    """Check the whole configuration without a daemon, and report all problems.

    It finds what `ostler run` by the same user would refuse. Plugins are imported, and their sections, services and
    drivers are checked: every problem is a line `file:line:column: message`, and the exit code is 78. If the
    configuration is valid, the directories, the database and its migrations are checked, without changing them and also
    while a daemon runs; the exit code is 1 if a daemon could not start, or only without a service or driver whose
    plugin is broken.

    With `--probe` each driver is asked for obstacles on this host, such as a missing tool or an unreachable array, in a
    process of its own; the exit code is 1 if one reports any.
    """
    paths = invocation.current_invocation().paths()
    assembly = without_daemon.resolve_start(overrides or [])
    found = assembly.configuration
    failed = [plugin for plugin in assembly.plugins.statuses() if plugin.state is PluginState.FAILED]
    warnings = [*assembly.warnings, *(f"plugin {plugin.name} failed: {plugin.why}" for plugin in failed)]
    services = sorted(found.services)
    drivers = [f"{topic}/{name}" for topic, name in sorted(found.drivers)]
    probes = _probe_drivers(assembly, probe_timeout) if probe else []
    is_bad = bool(assembly.broken) or any(each.state == "failed" for each in probes)
    if kit.json_wanted():
        masked = [{"file": file, "by": mask} for file, mask in found.raw.masked.items()]
        facts = {"services": services, "drivers": drivers, "warnings": warnings, "masked": masked}
        kit.emit({"ok": not is_bad, **facts, **({"probes": probes} if probe else {})})
        raise typer.Exit(EXIT_FAILURE if is_bad else 0)
    for warning in warnings:
        kit.warn(kit.printable(f"warning: {warning}"))
    but = ", but a daemon would start without what is broken" if assembly.broken else ""
    kit.say(f"The configuration is valid{but}: {', '.join(map(str, paths.config_layers))}")
    where = log_target_warning(found.log.format) or found.log.format
    for file, mask in found.raw.masked.items():
        kit.say(kit.printable(f"{file} is masked by {mask}"))
    kit.show_fields({"services": services, "drivers": drivers, "log": where})
    if probe:
        kit.show_table(probes, PROBE_COLUMNS, empty="No drivers.")
    if is_bad:
        raise typer.Exit(EXIT_FAILURE)


def _probe_drivers(resolved: ResolvedConfiguration, timeout: float) -> list[DriverProbe]:
    from ostler.cli.driver_probes import probe_drivers  # only with `--probe`

    with without_daemon.suppress_logging():
        return probe_drivers(resolved, timeout)
