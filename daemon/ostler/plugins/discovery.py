"""Which plugins there are: the entry points of a group, found in one walk over the installed distributions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.errors import describe

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_log = logging.getLogger(__name__)
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

    seen: set[str] = set()
    found: list[Found] = []
    for distribution in distributions():
        try:
            found += _of(distribution, group, seen)
        except Exception as error:  # noqa: BLE001 - a damaged installation of anything must not keep the daemon down
            _log.warning("entry points of %s cannot be read: %s", distribution, describe(error))
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def _of(distribution: Distribution, group: str, seen: set[str]) -> Iterator[Found]:
    text = distribution.read_text("entry_points.txt")
    if not text or f"[{group}]" not in text.replace(" ", ""):
        return
    name = distribution.metadata["Name"]
    # The same distribution may be found twice on the path; the first is the one that is imported.
    key = name.lower().replace("_", "-").replace(".", "-")
    if key in seen:
        return
    seen.add(key)
    for entry in distribution.entry_points:
        if entry.group == group:
            yield Found(entry.name, entry.value, entry.load, name, distribution.version)
