"""Which plugins there are: the entry points of a group, found in one walk over the installed distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import Distribution

GROUP = "ostler"


class Found(NamedTuple):
    """An entry point that names a plugin: what it is called, where it leads, and who brought it."""

    name: str
    value: str
    load: Callable[[], Any]
    distribution: str = ""
    version: str = ""

    @property
    def module(self) -> str:
        """The module it leads to."""
        return self.value.partition(":")[0].strip()


def given(name: str, plugin: object) -> Found:
    """Return an entry point that leads to a plugin that is there already; for tests and for plugins in a script."""
    return Found(name, getattr(plugin, "__name__", type(plugin).__name__), lambda: plugin)


def installed(group: str = GROUP) -> list[Found]:
    """Return the entry points of a group of everything that is installed, sorted by name and distribution.

    Reads no more than it needs: the text of every distribution's entry points, the metadata of those that match.
    Nothing is imported but `importlib.metadata`, which takes most of the time.
    """
    from importlib.metadata import distributions

    marker, seen = f"[{group}]", set[str]()
    found: list[Found] = []
    for distribution in distributions():
        text = distribution.read_text("entry_points.txt")
        if not text or marker not in text.replace(" ", ""):
            continue
        name = distribution.metadata["Name"]
        # The same distribution may be found twice on the path; the first is the one that is imported.
        if name not in seen:
            seen.add(name)
            found += _of(distribution, name, group)
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def _of(distribution: Distribution, name: str, group: str) -> Iterator[Found]:
    for entry in distribution.entry_points:
        if entry.group == group:
            yield Found(entry.name, entry.value, entry.load, name, distribution.version)
