"""The verbs that plugins bring: entry points of the group `ostler.commands`, each loaded when it is typed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ostler.cli.words import printable
from ostler.errors import PluginError, describe, joined

if TYPE_CHECKING:
    from ostler.plugins import Found

GROUP = "ostler.commands"
_LINE_LIMIT = 500
"""The most characters of what a distribution says of itself in `ostler --help`."""


def installed() -> list[Found]:
    """Return the entry points of the group, sorted by name and then by what brings them."""
    from ostler.plugins import discovery  # not needed for the verbs of Ostler itself

    return discovery.installed(GROUP)


class PluginVerbs:
    """The verbs of plugins.

    Args:
        taken: The names of Ostler's own verbs, which no plugin can take.
        find: Finds the entry points; a test hands in its own.
    """

    def __init__(self, taken: Collection[str], find: Callable[[], list[Found]] = installed) -> None:
        self._taken = taken
        self._find = find

    @cached_property
    def _points(self) -> dict[str, list[Found]]:
        found: dict[str, list[Found]] = {}
        for point in self._find():
            if point.name not in self._taken:
                found.setdefault(point.name, []).append(point)
        return found

    def names(self) -> list[str]:
        """Return the verbs, sorted; nothing is imported."""
        return list(self._points)

    def lines(self) -> list[tuple[str, str]]:
        """Return a line of help for each verb: the summary of the distribution that brings it; nothing is imported."""
        return [(printable(name), printable(_summary(points), _LINE_LIMIT)) for name, points in self._points.items()]

    def load(self, name: str) -> Any:
        """Import a verb and return its typer app; None when no plugin brings it.

        Raises:
            PluginError: It cannot be imported, is no typer app, or two plugins bring it.
        """
        points = self._points.get(name)
        if points is None:
            return None
        owners = [_owner(point) for point in points]
        if len(points) > 1:
            raise PluginError(
                f"the verb {name} is brought by {joined(owners)}",
                hint="uninstall one of them",
                verb=name,
                plugins=owners,
            )
        try:
            app = points[0].load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the verb {name} of {owners[0]} cannot be imported: {describe(error)}",
                hint=f"repair or uninstall {owners[0]}; OSTLER_TRACEBACK=1 shows where it fails",
                verb=name,
                plugin=owners[0],
            ) from error
        if not hasattr(app, "registered_commands"):
            raise PluginError(
                f"the verb {name} of {owners[0]} is no typer app: {points[0].value} is {type(app).__name__}",
                hint="name an app made with `ostler.cli.kit.app()` in the entry point",
                verb=name,
                plugin=owners[0],
            )
        return app


def _owner(point: Found) -> str:
    return point.distribution or point.module


def _summary(points: list[Found]) -> str:
    if len(points) > 1:
        return f"brought by {joined(_owner(point) for point in points)}: uninstall one of them"
    summary = points[0].summary
    return f"{summary} ({_owner(points[0])})" if summary else f"Brought by {_owner(points[0])}"
