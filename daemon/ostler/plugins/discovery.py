"""Finds plugins: the entry points of a group, in one pass over the installed distributions."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

import msgspec

from ostler.errors import error_line
from ostler.plugins.plugin_directory import active_plugins

_log = logging.getLogger(__name__)
ENTRY_POINT_GROUP = "ostler"


class DiscoveredPlugin(NamedTuple):
    """An entry point of a plugin: its name, its target, its distribution, and where the metadata of that is."""

    name: str
    value: str
    load: Callable[[], Any]
    distribution: str = ""
    version: str = ""
    summary: str = ""
    path: str = ""

    @property
    def module(self) -> str:
        """The module of its target."""
        return self.value.partition("[")[0].partition(":")[0].strip()


def in_memory_plugin(name: str, plugin: object) -> DiscoveredPlugin:
    """Return an entry point for an existing plugin object; for tests and for plugins in a script."""
    return DiscoveredPlugin(name, getattr(plugin, "__name__", type(plugin).__name__), lambda: plugin)


def installed_plugins(group: str = ENTRY_POINT_GROUP) -> list[DiscoveredPlugin]:
    """Return the entry points of a group of all installed distributions, sorted by name and distribution.

    Reads only what it needs: the text of every distribution's entry points, the metadata of those that match. Nothing
    is imported: `importlib.metadata` would take a tenth of the time to READY, and two megabytes.
    """
    seen: dict[str, _SeenDistribution] = {}
    found: list[DiscoveredPlugin] = []
    for info in _distribution_infos():
        try:
            found += _entry_points_of(info, group, seen)
        except Exception as error:  # noqa: BLE001 - a damaged installation of anything must not keep the daemon down
            _log.warning("entry points of %s cannot be read: %s", info.path, error_line(error))
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


class _SeenDistribution(msgspec.Struct, frozen=True):
    """A distribution found before: the path of its metadata, and its version."""

    path: str
    version: str


class _DistributionInfo(msgspec.Struct, frozen=True):
    """The metadata of a distribution: their path, a reader of their files, and its name if the path tells it."""

    path: str
    read: Callable[[str], str | None]
    name: str = ""


def _distribution_infos(path: list[str] | None = None) -> Iterator[_DistributionInfo]:
    """Yield the metadata of every distribution, in the order of the path (by default `sys.path`).

    Directories are read here. Archives on the path, and finders with distributions of their own, are left to
    `importlib.metadata`.
    """
    if any(_has_own_distributions(finder) for finder in sys.meta_path):
        yield from _non_directory_infos()
        return
    for entry in sys.path if path is None else path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208  (names alone are needed)
        except NotADirectoryError:
            yield from _non_directory_infos([entry])
            continue
        except OSError:
            continue
        if entry.lower().endswith(".egg"):
            yield from _non_directory_infos([entry])
            continue
        for name in _newest_first(names):
            if name.lower().endswith((".dist-info", ".egg-info")):
                folder = os.path.join(entry, name)  # noqa: PTH118  (a hundred of them are looked at)
                yield _DistributionInfo(folder, partial(_read_metadata, folder), name.partition("-")[0])


def _has_own_distributions(finder: object) -> bool:
    """Return whether a finder knows distributions that are not on the path; that of the backport knows no others."""
    return (
        finder is not PathFinder
        and hasattr(finder, "find_distributions")
        and type(finder).__module__.partition(".")[0] != "importlib_metadata"
    )


def _newest_first(names: list[str]) -> list[str]:
    """Return the names of metadata, the newest version first; without those that pip has renamed to `~name`.

    An interrupted installation leaves old metadata next to the new ones, and the order of a directory is random.
    """
    infos = [name for name in names if name.endswith("-info") and not name.startswith("~")]
    return sorted(infos, key=_version_key, reverse=True)


def _version_key(name: str) -> list[tuple[int, int, str]]:
    """Return the sort key of a version: numbers as numbers, `a`, `rc` and `dev` before the end, `post` after it."""
    version = name.rpartition(".")[0].partition("-")[2]
    parts: list[tuple[int, int, str]] = []
    for word in re.findall(r"[0-9]+|[a-z]+", version.lower()):
        if word.isdecimal():
            parts.append((3, int(word), ""))
        else:
            parts.append((2 if word == "post" else 0, 0, word))
    return [*parts, (1, 0, "")]


def version_on_disk(distribution: str) -> str:
    """Return the version of a distribution that a new process would get; empty when it is not installed."""
    wanted = _normalise_name(distribution)
    for info in _distribution_infos(active_plugins.replaced_path()):
        if info.name and _normalise_name(info.name) != wanted:  # a hundred of them are looked at
            continue
        with suppress(ValueError):  # damaged metadata
            facts = _parse_metadata(info.read("METADATA") or info.read("PKG-INFO") or "")
            if _normalise_name(facts["name"]) == wanted:
                return facts["version"]
    return ""


def _normalise_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _non_directory_infos(path: list[str] | None = None) -> Iterator[_DistributionInfo]:
    from importlib.metadata import distributions  # slow: only for what has no directory of metadata

    for distribution in distributions() if path is None else distributions(path=path):
        location: object = getattr(distribution, "_path", None)  # only of those that are on a path
        yield _DistributionInfo(str(location or distribution), distribution.read_text)


def _read_metadata(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123  (as above)
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _entry_points_of(
    info: _DistributionInfo, group: str, seen: dict[str, _SeenDistribution]
) -> Iterator[DiscoveredPlugin]:
    entries = list(_parse_entry_points(info.read("entry_points.txt") or "", group))
    if not entries:
        return
    facts = _parse_metadata(info.read("METADATA") or info.read("PKG-INFO") or "")
    name = facts["name"]
    # The same distribution may be found twice on the path; the first is the one that is imported.
    key, version = _normalise_name(name), facts["version"]
    if (first := seen.get(key)) is not None:
        if os.path.dirname(first.path) == os.path.dirname(info.path):  # noqa: PTH120  (as above)
            text = "%s is installed twice: using %s; %s is left over (%s), remove it or reinstall the plugin"
            _log.warning(text, name, first.version, version, info.path)
        return
    seen[key] = _SeenDistribution(info.path, version)
    for entry, value in entries:
        yield DiscoveredPlugin(
            entry, value, partial(_load_object, value), name, version, facts.get("summary", ""), info.path
        )


def _parse_entry_points(text: str, group: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _parse_metadata(metadata: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in metadata.splitlines():
        if not line:
            break  # the long description follows
        key, _, value = line.partition(":")
        facts.setdefault(key.lower(), value.strip())
    missing = {"name", "version"} - facts.keys()
    if missing:
        raise ValueError(f"its metadata lacks the {' and '.join(sorted(missing))}")
    return facts


def _load_object(value: str) -> Any:
    """Return the target of an entry point: `module` or `module:name.name`, ignoring extras in brackets."""
    module, _, names = value.partition("[")[0].partition(":")
    found: Any = import_module(module.strip())
    for name in filter(None, names.strip().split(".")):
        found = getattr(found, name)
    return found
