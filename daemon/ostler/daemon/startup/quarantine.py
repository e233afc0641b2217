"""Finds out whose code ran when earlier processes crashed, and quarantines a plugin in which that happens again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from ostler import log
from ostler.daemon.process.crash_record import CrashReport, StackFrame
from ostler.errors import PluginError
from ostler.plugins import DiscoveredPlugin, installed_plugins
from ostler.plugins.plugin_records import PluginCrash, add_crash
from ostler.time_text import format_moment

_log = logging.getLogger(__name__)


def examine_crashes(
    reports: Sequence[CrashReport], state_dir: Path, plugins: Sequence[DiscoveredPlugin] | None = None
) -> None:
    """Log the crashes of earlier processes, and record those in the code of a plugin. Before any plugin is imported.

    A crash is held against the plugin whose code is nearest to the place where the crashed thread was. Code that other
    threads ran at that moment is not suspected. Blocks; raises nothing.

    Args:
        reports: The crashes.
        state_dir: The state directory.
        plugins: The plugins; by default the installed ones.
    """
    if not reports:
        return
    installed = installed_plugins() if plugins is None else plugins
    places = {plugin.name: _locations(plugin.module.partition(".")[0]) for plugin in installed}
    versions = {plugin.name: plugin.version for plugin in installed}
    for report in reports:
        name, frame = find_culprit(report, places)
        where = f", at {frame or report.stack[0]}" if frame or report.stack else ""
        whose = f" in the code of plugin {name}" if name else ""
        when = format_moment(report.at)
        _log.error("the daemon crashed%s at %s: %s%s", whose, when, report.how, where, extra=log.detail(report.text))
        if name:
            crash = PluginCrash(plugin=name, at=report.at, version=versions[name], what=f"{report.how}{where}")
            _record(state_dir, crash)


def _record(state_dir: Path, crash: PluginCrash) -> None:
    try:
        is_quarantined = add_crash(state_dir, crash, time.time())
    except PluginError as error:
        _log.warning("the crash cannot be recorded: %s", error)
        return
    if is_quarantined:
        text = "plugin %s is quarantined until `ostler plugin reset %s`, or until another version of it is installed"
        _log.error(text, crash.plugin, crash.plugin, extra=log.message_id("plugin-quarantined"))


def find_culprit(report: CrashReport, places: Mapping[str, Sequence[str]]) -> tuple[str, StackFrame | None]:
    """Return the plugin whose code the crashed thread ran, and where; empty when it was in that of none.

    Args:
        report: The crash.
        places: The files and directories (with a slash at the end) of each plugin.
    """
    for frame in report.stack:
        for name, paths in places.items():
            if any(frame.file == path or (path.endswith("/") and frame.file.startswith(path)) for path in paths):
                return name, frame
    return "", None


def _locations(package: str) -> list[str]:
    """Return where the code of a top package is, without importing it."""
    try:
        spec = find_spec(package)
    except Exception:  # noqa: BLE001 - a finder of a plugin may raise anything
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [os.path.join(place, "") for place in spec.submodule_search_locations]  # noqa: PTH118 - with a slash
    return [spec.origin] if spec.origin else []
