"""Which plugins there are: the entry points of a group, found in one walk over the installed distributions."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

import msgspec

from ostler.errors import describe

_log = logging.getLogger(__name__)
GROUP = "ostler"


class Found(NamedTuple):
    """An entry point that names a plugin: what it is called, where it leads, and who brought it."""

    name: str
    value: str
    load: Callable[[], Any]
    distribution: str = ""
    version: str = ""
    summary: str = ""

    @property
    def module(self) -> str:
        """The module it leads to."""
        return self.value.partition("[")[0].partition(":")[0].strip()


def given(name: str, plugin: object) -> Found:
    """Return an entry point that leads to a plugin that is there already; for tests and for plugins in a script."""
    return Found(name, getattr(plugin, "__name__", type(plugin).__name__), lambda: plugin)


def installed(group: str = GROUP) -> list[Found]:
    """Return the entry points of a group of everything that is installed, sorted by name and distribution.

    Reads no more than it needs: the text of every distribution's entry points, the metadata of those that match.
    Nothing is imported: `importlib.metadata` would take a tenth of the time to READY, and two megabytes.
    """
    seen: dict[str, _Seen] = {}
    found: list[Found] = []
    for info in _infos():
        try:
            found += _of(info, group, seen)
        except Exception as error:  # noqa: BLE001 - a damaged installation of anything must not keep the daemon down
            _log.warning("entry points of %s cannot be read: %s", info.place, describe(error))
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


class _Seen(msgspec.Struct, frozen=True):
    """A distribution that was found already: where its metadata are, and its version."""

    place: str
    version: str


class _Info(msgspec.Struct, frozen=True):
    """The metadata of a distribution: where they are, and what gives the text of one of their files."""

    place: str
    read: Callable[[str], str | None]


def _infos() -> Iterator[_Info]:
    """Yield the metadata of every distribution, in the order of the path.

    Folders are read here. Archives on the path, and finders that bring distributions of their own, are left to
    `importlib.metadata`.
    """
    if any(finder is not PathFinder and hasattr(finder, "find_distributions") for finder in sys.meta_path):
        yield from _others()
        return
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208  (names alone are needed)
        except NotADirectoryError:
            yield from _others([entry])
            continue
        except OSError:
            continue
        if entry.lower().endswith(".egg"):
            yield from _others([entry])
            continue
        for name in _newest_first(names):
            if name.lower().endswith((".dist-info", ".egg-info")):
                folder = os.path.join(entry, name)  # noqa: PTH118  (a hundred of them are looked at)
                yield _Info(folder, partial(_text, folder))


def _newest_first(names: list[str]) -> list[str]:
    """Return the names of metadata, the newest version first; without those that pip has put aside as `~name`.

    An installation that was cut off leaves old metadata beside the new ones, and the order of a directory is chance.
    """
    infos = [name for name in names if name.endswith("-info") and not name.startswith("~")]
    return sorted(infos, key=_version_order, reverse=True)


def _version_order(name: str) -> list[tuple[int, int, str]]:
    """Return what versions are compared by: numbers as numbers, `a`, `rc` and `dev` before the end, `post` after it."""
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
    wanted = _key(distribution)
    for info in _infos():
        name = os.path.basename(info.place)  # noqa: PTH119  (a hundred of them are looked at)
        if _key(name.partition("-")[0]) == wanted and (text := info.read("METADATA") or info.read("PKG-INFO")):
            return _facts(text)["version"]
    return ""


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _others(path: list[str] | None = None) -> Iterator[_Info]:
    from importlib.metadata import distributions

    for distribution in distributions() if path is None else distributions(path=path):
        yield _Info(str(distribution), distribution.read_text)


def _text(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123  (as above)
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _of(info: _Info, group: str, seen: dict[str, _Seen]) -> Iterator[Found]:
    entries = list(_entries(info.read("entry_points.txt") or "", group))
    if not entries:
        return
    facts = _facts(info.read("METADATA") or info.read("PKG-INFO") or "")
    name = facts["name"]
    # The same distribution may be found twice on the path; the first is the one that is imported.
    key, version = _key(name), facts["version"]
    if (first := seen.get(key)) is not None:
        if os.path.dirname(first.place) == os.path.dirname(info.place):  # noqa: PTH120  (as above)
            text = "%s is there twice: %s is used; %s is left over (%s), remove it or install the plugin again"
            _log.warning(text, name, first.version, version, info.place)
        return
    seen[key] = _Seen(info.place, version)
    for entry, value in entries:
        yield Found(entry, value, partial(_load, value), name, version, facts.get("summary", ""))


def _entries(text: str, group: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _facts(metadata: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in metadata.splitlines():
        if not line:
            break  # what follows is the long description
        key, _, value = line.partition(":")
        facts.setdefault(key.lower(), value.strip())
    missing = {"name", "version"} - facts.keys()
    if missing:
        raise ValueError(f"its metadata do not say its {' and '.join(sorted(missing))}")
    return facts


def _load(value: str) -> Any:
    """Return what an entry point leads to: `module` or `module:name.name`, extras in brackets left out."""
    module, _, names = value.partition("[")[0].partition(":")
    found: Any = import_module(module.strip())
    for name in filter(None, names.strip().split(".")):
        found = getattr(found, name)
    return found
