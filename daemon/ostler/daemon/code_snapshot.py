"""The code that a daemon may still import, as it was at its start: an upgrade may replace the files under it."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from ostler.errors import describe

_log = logging.getLogger(__name__)
_NEVER_IMPORTED = {"ostler.cli", "ostler.testing", "__pycache__"}
_MOST = 16 * 1024 * 1024
"""Bytes of source of one package that are looked at: a plugin that ships more is left to the disk."""
_FILE_MOST = 512 * 1024
_DEEPEST = 16
"""Levels of packages that are looked at: a link may lead to a directory above it."""
_PATIENCE = 60.0
"""Seconds that packing waits for reading: a directory on a server that is away may take for ever."""


class _Source(NamedTuple):
    path: str
    is_package: bool
    stamp: tuple[int, int, int]
    data: bytes | None
    """None for a package without `__init__.py`."""
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
        self._reading: threading.Thread | None = None

    def install(self) -> None:
        """Serve imports from now on."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Serve no more imports."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def take(self) -> None:
        """Read what is not imported yet: 2 ms for Ostler and its plugins. Blocks. Raises nothing."""
        for name in self._packages:
            room = _MOST
            try:
                for folder in _folders(name):
                    room = self._walk(name, folder, room)
            except Exception as error:  # noqa: BLE001 - `__spec__` of a plugin may be anything
                _log.debug("the code of %s cannot be read: %s", name, describe(error))

    def take_in_background(self) -> None:
        """Begin to read on a thread, which ends with it; `wait` waits for that."""
        self._reading = threading.Thread(target=self.take, name="code-snapshot", daemon=True)
        self._reading.start()

    def wait(self, seconds: float) -> bool:
        """Wait for what was begun in the background; return whether all is read. Blocks for `seconds` at most."""
        if self._reading is not None:
            self._reading.join(seconds)
        return self._reading is None or not self._reading.is_alive()

    def pack_in_background(self) -> None:
        """Have what was read take less memory, on a thread that ends with it."""
        threading.Thread(target=self.pack, name="code-snapshot", daemon=True).start()

    def pack(self) -> None:
        """Have what was read take less memory, and part with what has been imported meanwhile."""
        self.wait(_PATIENCE)
        for name, source in list(self._sources.items()):
            if name in sys.modules:
                self._sources.pop(name, None)
            elif source.data and not source.is_packed:
                self._sources[name] = source._replace(data=zlib.compress(source.data, 1), is_packed=True)

    def _walk(self, package: str, folder: str, room: int) -> int:
        if package.count(".") > _DEEPEST:
            return room
        # Names relative to a directory that is open: a walk that is under way goes on in what was moved away.
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            entries = os.listdir(directory)  # noqa: PTH208  (a descriptor)
            if "__init__.py" not in entries and package not in sys.modules:
                self._sources[package] = _Source(folder, True, _stamp(os.fstat(directory)), None)
            for entry in entries:
                stem, dot, extension = entry.rpartition(".")
                if dot and extension == "py" and stem.isidentifier():
                    name = package if stem == "__init__" else f"{package}.{stem}"
                    if name not in sys.modules and name not in _NEVER_IMPORTED:
                        room -= self._read(name, directory, f"{folder}/{entry}", room)
                elif not dot and entry.isidentifier() and not _NEVER_IMPORTED & {entry, f"{package}.{entry}"}:
                    with suppress(OSError):  # a file, as a rule
                        room = self._walk(f"{package}.{entry}", f"{folder}/{entry}", room)
        finally:
            os.close(directory)
        return room

    def _read(self, name: str, directory: int, path: str, room: int) -> int:
        entry = path.rpartition("/")[2]
        # A pipe with the name of a module must not hold up the start, and one file that cannot be read not the others.
        try:
            file = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return 0
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > min(room, _FILE_MOST):
                return 0
            data = os.read(file, _FILE_MOST)
        except OSError:
            return 0
        finally:
            os.close(file)
        self._sources[name] = _Source(path, entry == "__init__.py", _stamp(facts), data)
        return len(data)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module comes from: from here when its file is not as it was, else from the disk (None)."""
        source = self._sources.get(fullname)
        if source is None or _is_unchanged(source):
            return None
        if source.data is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [source.path]
            return spec
        spec = ModuleSpec(fullname, self, origin=source.path, is_package=source.is_package)
        spec.has_location = True
        if source.is_package:
            spec.submodule_search_locations = [os.path.dirname(source.path)]  # noqa: PTH120  (as above)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code; see `Loader`."""
        source = self._sources[module.__name__]
        assert source.data is not None  # noqa: S101 - such a package has no loader
        data = zlib.decompress(source.data) if source.is_packed else source.data
        code = compile(data, source.path, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 - this is what an import does

    def stats(self) -> dict[str, Any]:
        """Return how many modules are held, and their packed bytes."""
        return {"modules": len(self._sources), "bytes": sum(len(each.data or b"") for each in self._sources.values())}


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
