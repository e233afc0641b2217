"""`ostler plugin show`, and the levels of `ostler plugin check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostler.cli import kit, without_daemon
from ostler.errors import EXIT_FAILURE, InvalidInput, NotFound, join_words

if TYPE_CHECKING:
    from ostler.cli.plugin_check import PluginCheckResult
    from ostler.cli.plugin_overview import PluginOverview
    from ostler.plugins import PluginHost


@kit.shows("ostler.cli.plugin_overview:PluginOverview")
def show(name: Annotated[str, typer.Argument(help="The plugin", show_default=False)]) -> None:
    """Show what a plugin provides, with a sample configuration.

    Needs no daemon: managers with their methods and the roles that callers need, drivers, commands, extensions, tables,
    and each option with its default.
    """
    from ostler.cli.plugin_overview import describe_plugin  # 70 ms: only for `plugin show`

    with without_daemon.suppress_logging():
        host = without_daemon.discover_plugins()
        known = {status.name: status for status in host.statuses()}
        if name not in known:
            raise NotFound(f"plugin {name} not found", hint=f"installed: {join_words(known) or 'none'}", plugin=name)
        found = describe_plugin(host, known[name])
    if kit.json_wanted():
        kit.emit(found)
    else:
        _print_overview(found)


def _print_overview(found: PluginOverview) -> None:
    status = found.status
    kit.heading(kit.printable(f"{status.name} {status.version} {status.state}".replace("  ", " ")))
    if status.why:
        kit.say(f"  {kit.printable(status.why)}")
    if status.crashes:
        kit.say(f"  the daemon has crashed in its code {status.crashes} times in the last day")
    for manager in found.managers:
        kit.say(kit.printable(f"  manager {manager.name}: {manager.help}"))
        if manager.contract:
            kit.say(kit.printable(f"    its drivers implement {manager.contract}"))
        for method in manager.methods:
            kit.say(kit.printable(f"    {method.name} ({method.role}): {method.help}"))
    for name, text in found.drivers.items():
        kit.say(kit.printable(f"  driver {name}: {text}"))
    lines = [f"command ostler {name}" for name in found.commands]
    lines += [f"extension {name}" for name in found.extensions]
    lines += [f"section [{name}]" for name in found.sections]
    lines += [f"tables {name}_…" for name in found.tables]
    for line in lines:
        kit.say(f"  {kit.printable(line)}")
    if found.configuration:
        kit.say()
        kit.heading("Sample configuration")
        for line in found.configuration.splitlines():
            kit.say(kit.printable(line))


def check_levels(host: PluginHost, chosen: list[PluginCheckResult], level: str, config: Path | None) -> None:
    """Check plugins up to a level, and show the result of each.

    Args:
        host: The plugin host, after its discovery.
        chosen: What `check_plugins` says of the plugins.
        level: The last level.
        config: A configuration file with services of them.

    Raises:
        Exit: A plugin has problems.
        InvalidInput: There is no such level, or the file cannot be read.
    """
    from ostler.cli.plugin_levels import LevelChecks  # 200 ms: runs services

    try:
        text = config.read_text(encoding="utf-8") if config is not None else ""
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot read {config}: {error}") from None
    with without_daemon.suppress_logging():
        results = {found.plugin: LevelChecks(host, found, text).run(level) for found in chosen}
    if kit.json_wanted():
        kit.emit(results)
    for plugin, levels in results.items():
        kit.heading(kit.printable(plugin))
        for result in levels:
            state = "failed" if result.problems else "not checked" if result.skipped else "ok"
            kit.say(f"  {result.level}: {state}")
            for line in [*result.problems, *result.skipped]:
                kit.say(f"    {kit.printable(line)}")
    if any(result.problems for levels in results.values() for result in levels):
        raise typer.Exit(EXIT_FAILURE)
