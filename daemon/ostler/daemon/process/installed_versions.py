"""Whether the running versions are still the installed ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import ostler
from ostler.plugins.discovery import version_on_disk
from ostler.plugins.plugin_directory import active_plugins

if TYPE_CHECKING:
    from ostler.plugins import PluginHost


class InstalledVersions:
    """Compares the versions of Ostler and its plugins with those on disk, when a directory of the path has changed.

    On the loop: nothing is read while no package was installed or removed.

    Args:
        plugins: The plugins that run.
    """

    def __init__(self, plugins: PluginHost) -> None:
        self._plugins = plugins
        self._seen = self._what_counts()
        self._lines: list[str] = []

    def newer_on_disk(self) -> list[str]:
        """Return a line for each package whose installed version differs from the running one."""
        seen = self._what_counts()
        if seen != self._seen:
            self._seen = seen
            self._lines = [*_core_lines(), *self._plugins.newer_on_disk()]
        return self._lines

    def _what_counts(self) -> tuple[list[int], list[str]]:
        # A reload loads plugins: one that is gone again before anybody asked leaves the directories as they were.
        return _directory_mtimes(), self._plugins.packages()


def _core_lines() -> list[str]:
    version = version_on_disk("ostler")
    if version in ("", ostler.__version__):
        return []
    return [f"ostler {ostler.__version__} is running, {version} is installed: restart the daemon to use it"]


def _directory_mtimes() -> list[int]:
    stamps = []
    for entry in active_plugins.replaced_path():
        try:
            stamps.append(os.stat(entry or ".").st_mtime_ns)  # noqa: PTH116  (each status asks)
        except OSError:
            stamps.append(0)
    return stamps
