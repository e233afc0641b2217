"""Whether what runs is still what is installed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import ostler
from ostler.plugins.discovery import version_on_disk

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
        self._stamps = _stamps()
        self._lines: list[str] = []

    def newer_on_disk(self) -> list[str]:
        """Return a line for everything that is installed in another version than runs."""
        stamps = _stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            self._lines = [*_core(), *self._plugins.newer_on_disk()]
        return self._lines


def _core() -> list[str]:
    version = version_on_disk("ostler")
    if version in ("", ostler.__version__):
        return []
    return [f"ostler runs {ostler.__version__}, {version} is on disk: restart the daemon to use what is there"]


def _stamps() -> list[int]:
    stamps = []
    for entry in sys.path:
        try:
            stamps.append(os.stat(entry or ".").st_mtime_ns)  # noqa: PTH116  (each status asks)
        except OSError:
            stamps.append(0)
    return stamps
