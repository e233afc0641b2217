"""`ostler check`: what a start would refuse. It bypasses typer as `status` does: that would be a third of its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ostler.cli import invocation, kit, without_daemon
from ostler.errors import EXIT_FAILURE, EXIT_OK
from ostler.types import PluginState

if TYPE_CHECKING:
    from ostler.cli.driver_probes import DriverProbe
    from ostler.service.resolve import ResolvedConfiguration

PROBE_COLUMNS = [
    kit.Column("driver", lambda found: f"{found.service}/{found.driver}"),
    kit.Column("probe", "state"),
    kit.Column("why", lambda found: "; ".join(found.reasons)),
]


def parse_overrides(words: Sequence[str]) -> list[str] | None:
    """Return the values of `--set`; None for any other argument, which typer then handles.

    Args:
        words: The arguments after `check`.
    """
    rest: Iterator[str] = iter(words)
    overrides = []
    for word in rest:
        name, equals, value = word.partition("=")
        if name != "--set" or (not equals and (value := next(rest, "")) == ""):
            return None
        overrides.append(value)
    return overrides


def run_check(overrides: Sequence[str], probe_timeout: float | None = None) -> int:
    """Check the whole configuration as a start would, show what was found and return the exit code.

    Args:
        overrides: Values that override the files, each `table.key=VALUE`.
        probe_timeout: Ask each driver whether it could work here, for so many seconds; None to ask none.

    Raises:
        ConfigurationError: A start would be refused.
    """
    assembly = without_daemon.resolve_start(overrides)
    failed = [plugin for plugin in assembly.plugins.statuses() if plugin.state is PluginState.FAILED]
    warnings = [*assembly.warnings, *(f"plugin {plugin.name} failed: {plugin.why}" for plugin in failed)]
    probes = None if probe_timeout is None else _probe_drivers(assembly, probe_timeout)
    is_bad = bool(assembly.broken) or any(each.state == "failed" for each in probes or ())
    _show(assembly, warnings, probes, is_ok=not is_bad)
    return EXIT_FAILURE if is_bad else EXIT_OK


def _show(
    assembly: ResolvedConfiguration, warnings: Sequence[str], probes: Sequence[DriverProbe] | None, *, is_ok: bool
) -> None:
    from ostler.daemon.load_configuration import log_target_warning  # loaded by now, and 70 ms before

    found = assembly.configuration
    services = sorted(found.services)
    drivers = [f"{topic}/{name}" for topic, name in sorted(found.drivers)]
    masked = found.raw.masked
    if kit.json_wanted():
        facts = {
            "services": services,
            "drivers": drivers,
            "warnings": warnings,
            "masked": [{"file": file, "by": mask} for file, mask in masked.items()],
        }
        kit.emit({"ok": is_ok, **facts, **({} if probes is None else {"probes": probes})})
        return
    for warning in warnings:
        kit.warn(kit.printable(f"warning: {warning}"))
    but = ", but a daemon would start without what is broken" if assembly.broken else ""
    layers = invocation.current_invocation().paths().config_layers
    kit.say(f"The configuration is valid{but}: {', '.join(map(str, layers))}")
    for file, mask in masked.items():
        kit.say(kit.printable(f"{file} is masked by {mask}"))
    where = log_target_warning(found.log.format) or found.log.format
    kit.show_fields({"services": services, "drivers": drivers, "log": where})
    if probes is not None:
        kit.show_table(probes, PROBE_COLUMNS, empty="No drivers.")


def _probe_drivers(resolved: ResolvedConfiguration, timeout: float) -> list[DriverProbe]:
    from ostler.cli.driver_probes import probe_drivers  # only with `--probe`

    with without_daemon.suppress_logging():
        return probe_drivers(resolved, timeout)
