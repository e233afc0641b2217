"""The code that a daemon may still import, as it was at its start: an upgrade may replace the files under it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)
_NEVER_IMPORTED = {"ostler.cli", "ostler.testing", "__pycache__"}
_MOST = 16 * 1024 * 1024
"""Bytes of source of one package that are looked at: a plugin that ships more is left to the disk."""
_FILE_MOST = 512 * 1024


class _Source(NamedTuple):
    path: str
    is_package: bool
    stamp: tuple[int, int, int]
    data: bytes
    is_packed: bool = False


class CodeSnapshot(MetaPathFinder, Loader):
    """Holds the source of modules that are not imported yet, packed: to import them all would cost ten times as much.

    A module whose file is as it was is imported from the disk, as ever. One whose file has gone or changed comes from
    here, so that what is imported late fits what runs. Any thread.

    Args:
        packages: Names of packages that are imported; their modules are looked for in their directories.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = list(dict.fromkeys(packages))
        self._sources: dict[str, _Source] = {}

    def install(self) -> None:
        """Serve imports from now on."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Serve no more imports."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def take(self) -> None:
        """Read what is not imported yet. Blocks for some 20 ms; on a thread of its own. Raises nothing."""
        for name in self._packages:
            room = _MOST
            try:
                for folder in _folders(name):
                    room = self._walk(name, folder, room)
            except (ImportError, OSError, ValueError) as error:
                _log.debug("the code of %s cannot be read: %s", name, error)

    def pack(self) -> None:
        """Have what was read take less memory."""
        for name, source in list(self._sources.items()):
            self._sources[name] = source._replace(data=zlib.compress(source.data, 1), is_packed=True)

    def _walk(self, package: str, folder: str, room: int) -> int:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            stem, extension = os.path.splitext(entry.name)  # noqa: PTH122  (hundreds of them are looked at)
            name = f"{package}.{stem}"
            if name in _NEVER_IMPORTED or entry.name in _NEVER_IMPORTED or not stem.isidentifier():
                continue
            if extension == ".py":
                room -= self._read(package if stem == "__init__" else name, entry.path, stem == "__init__", room)
            elif not extension and entry.is_dir():
                room = self._walk(name, entry.path, room)
        return room

    def _read(self, name: str, path: str, is_package: bool, room: int) -> int:
        if name in sys.modules:
            return 0
        with open(path, "rb") as file:  # noqa: PTH123  (as above)
            facts = os.fstat(file.fileno())
            if facts.st_size > min(room, _FILE_MOST):
                return 0
            data = file.read(_FILE_MOST)
        self._sources[name] = _Source(path, is_package, _stamp(facts), data)
        return len(data)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module comes from: from here when its file is not as it was, else from the disk (None)."""
        source = self._sources.get(fullname)
        if source is None or _is_unchanged(source):
            return None
        spec = ModuleSpec(fullname, self, origin=source.path, is_package=source.is_package)
        spec.has_location = True
        if source.is_package:
            spec.submodule_search_locations = [os.path.dirname(source.path)]  # noqa: PTH120  (as above)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code; see `Loader`."""
        source = self._sources[module.__name__]
        data = zlib.decompress(source.data) if source.is_packed else source.data
        code = compile(data, source.path, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 - this is what an import does

    def stats(self) -> dict[str, Any]:
        """Return how many modules are held, and their packed bytes."""
        return {"modules": len(self._sources), "bytes": sum(len(each.data) for each in self._sources.values())}


def take_in_background(packages: Iterable[str]) -> Callable[[], None]:
    """Take a snapshot on a thread that ends with it; return what removes it again."""
    snapshot = CodeSnapshot(packages)

    def work() -> None:
        snapshot.install()
        snapshot.take()  # first all is read: an upgrade may begin as soon as systemd knows that the daemon is ready
        snapshot.pack()

    threading.Thread(target=work, name="code-snapshot", daemon=True).start()
    return snapshot.remove


def _folders(package: str) -> list[str]:
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _stamp(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _is_unchanged(source: _Source) -> bool:
    try:
        return _stamp(os.stat(source.path)) == source.stamp  # noqa: PTH116  (as above)
    except OSError:
        return False
