"""The commands that plugins provide: entry points of the group `ostler.commands`, each loaded when it is run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ostler.cli.formatting import printable
from ostler.errors import PluginError, error_line, join_words

if TYPE_CHECKING:
    from ostler.plugins import DiscoveredPlugin

ENTRY_POINT_GROUP = "ostler.commands"
_MAX_SUMMARY_LENGTH = 500
"""The maximum number of characters of a distribution's summary in `ostler --help`."""


def installed_entry_points() -> list[DiscoveredPlugin]:
    """Return the entry points of the group, sorted by name and then by distribution."""
    from ostler.plugins import discovery  # not needed for Ostler's own commands

    return discovery.installed_plugins(ENTRY_POINT_GROUP)


class PluginCommands:
    """The commands of plugins.

    Args:
        reserved: The names of Ostler's own commands, which no plugin can replace.
        find_entry_points: Finds the entry points; tests pass their own.
    """

    def __init__(
        self,
        reserved: Collection[str],
        find_entry_points: Callable[[], list[DiscoveredPlugin]] = installed_entry_points,
    ) -> None:
        self._reserved = reserved
        self._find_entry_points = find_entry_points

    @cached_property
    def _entry_points(self) -> dict[str, list[DiscoveredPlugin]]:
        found: dict[str, list[DiscoveredPlugin]] = {}
        for point in self._find_entry_points():
            if point.name not in self._reserved:
                found.setdefault(point.name, []).append(point)
        return found

    def names(self) -> list[str]:
        """Return the names of the commands, sorted; nothing is imported."""
        return list(self._entry_points)

    def help_lines(self) -> list[tuple[str, str]]:
        """Return a help line for each command: the summary of its distribution; nothing is imported."""
        return [
            (printable(name), printable(_summary(points), _MAX_SUMMARY_LENGTH))
            for name, points in self._entry_points.items()
        ]

    def load(self, name: str) -> Any:
        """Import a command and return its typer app; None if no plugin provides it.

        Raises:
            PluginError: It cannot be imported, is not a typer app, or two plugins provide it.
        """
        points = self._entry_points.get(name)
        if points is None:
            return None
        owners = [_distribution_name(point) for point in points]
        if len(points) > 1:
            raise PluginError(
                f"the command {name} is provided by {join_words(owners)}",
                hint="uninstall one of them",
                verb=name,
                plugins=owners,
            )
        try:
            app = points[0].load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"cannot import the command {name} of {owners[0]}: {error_line(error)}",
                hint=f"fix or uninstall {owners[0]}; OSTLER_TRACEBACK=1 shows where it fails",
                verb=name,
                plugin=owners[0],
            ) from error
        if not hasattr(app, "registered_commands"):
            raise PluginError(
                f"the command {name} of {owners[0]} is not a typer app: {points[0].value} is {type(app).__name__}",
                hint="name an app created with `ostler.cli.kit.app()` in the entry point",
                verb=name,
                plugin=owners[0],
            )
        return app


def _distribution_name(point: DiscoveredPlugin) -> str:
    return point.distribution or point.module


def _summary(points: list[DiscoveredPlugin]) -> str:
    if len(points) > 1:
        return f"provided by {join_words(_distribution_name(point) for point in points)}: uninstall one of them"
    summary = points[0].summary
    return f"{summary} ({_distribution_name(points[0])})" if summary else f"Provided by {_distribution_name(points[0])}"
