"""The code that a daemon may still import, as it was at its start: an upgrade may replace the files on disk."""

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

from ostler.aio.optional_thread import start_optional_thread
from ostler.errors import error_line

_log = logging.getLogger(__name__)
_NEVER_IMPORTED = {"ostler.cli", "ostler.testing", "__pycache__"}
_MAX_PACKAGE_SIZE = 16 * 1024 * 1024
"""The most bytes of source that are read of one package; the rest is imported from disk."""
_MAX_FILE_SIZE = 512 * 1024
_MAX_DEPTH = 16
"""The most levels of packages that are read: a link may lead to a directory above it."""
_READ_TIMEOUT = 60.0
"""Seconds that packing waits for reading: a directory on an unreachable server may block indefinitely."""


class _ModuleSource(NamedTuple):
    path: str
    is_package: bool
    stamp: tuple[int, int, int]
    data: bytes | None
    """None for a package without `__init__.py`."""
    is_compressed: bool = False


class CodeSnapshot(MetaPathFinder, Loader):
    """Holds the source of modules that are not imported yet, packed: to import them all would cost ten times as much.

    A module whose file is unchanged is imported from disk, as usual. One whose file was removed or changed comes from
    here, so that late imports match the running code. Any thread.

    Args:
        packages: Names of packages that are imported; their modules are looked for in their directories.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = list(dict.fromkeys(packages))
        self._sources: dict[str, _ModuleSource] = {}
        self._reader_thread: threading.Thread | None = None

    def install(self) -> None:
        """Serve imports from now on."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Serve no more imports."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def read(self) -> None:
        """Read the modules that are not imported yet: 2 ms for Ostler and its plugins. Blocks. Raises nothing."""
        for name in self._packages:
            room = _MAX_PACKAGE_SIZE
            try:
                for folder in _package_directories(name):
                    room = self._walk(name, folder, room)
            except Exception as error:  # noqa: BLE001 - `__spec__` of a plugin may be anything
                _log.debug("cannot read the code of %s: %s", name, error_line(error))

    def read_in_background(self) -> None:
        """Start reading on a thread; `wait` waits for its end."""
        self._reader_thread = start_optional_thread(self.read, "code-snapshot")

    def wait(self, timeout: float) -> bool:
        """Wait for the reading in the background; return whether it has finished. Blocks for `timeout` at most."""
        if self._reader_thread is not None:
            self._reader_thread.join(timeout)
        return self._reader_thread is None or not self._reader_thread.is_alive()

    def compress_in_background(self) -> None:
        """Compress what was read, on a thread of its own."""
        start_optional_thread(self.compress, "code-snapshot")

    def compress(self) -> None:
        """Compress what was read, and drop the modules that have been imported meanwhile."""
        self.wait(_READ_TIMEOUT)
        for name, source in list(self._sources.items()):
            if name in sys.modules:
                self._sources.pop(name, None)
            elif source.data and not source.is_compressed:
                self._sources[name] = source._replace(data=zlib.compress(source.data, 1), is_compressed=True)

    def _walk(self, package: str, folder: str, size_left: int) -> int:
        if package.count(".") > _MAX_DEPTH:
            return size_left
        # Names relative to an open directory: a walk in progress continues in the directory that was moved away.
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            entries = os.listdir(directory)  # noqa: PTH208  (a descriptor)
            if "__init__.py" not in entries and package not in sys.modules:
                self._sources[package] = _ModuleSource(folder, True, _file_stamp(os.fstat(directory)), None)
            for entry in entries:
                stem, dot, extension = entry.rpartition(".")
                if dot and extension == "py" and stem.isidentifier():
                    name = package if stem == "__init__" else f"{package}.{stem}"
                    if name not in sys.modules and name not in _NEVER_IMPORTED:
                        size_left -= self._read(name, directory, f"{folder}/{entry}", size_left)
                elif not dot and entry.isidentifier() and not _NEVER_IMPORTED & {entry, f"{package}.{entry}"}:
                    with suppress(OSError):  # a file, as a rule
                        size_left = self._walk(f"{package}.{entry}", f"{folder}/{entry}", size_left)
        finally:
            os.close(directory)
        return size_left

    def _read(self, name: str, directory: int, path: str, size_left: int) -> int:
        entry = path.rpartition("/")[2]
        # A pipe named like a module must not block the start, and one unreadable file must not affect the others.
        try:
            file = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return 0
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > min(size_left, _MAX_FILE_SIZE):
                return 0
            data = os.read(file, _MAX_FILE_SIZE)
        except OSError:
            return 0
        finally:
            os.close(file)
        self._sources[name] = _ModuleSource(path, entry == "__init__.py", _file_stamp(facts), data)
        return len(data)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return this loader for a module whose file has changed, else None: it is imported from disk."""
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
        data = zlib.decompress(source.data) if source.is_compressed else source.data
        code = compile(data, source.path, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 - this is what an import does

    def stats(self) -> dict[str, Any]:
        """Return how many modules are held, and their packed bytes."""
        return {"modules": len(self._sources), "bytes": sum(len(each.data or b"") for each in self._sources.values())}


def _package_directories(package: str) -> list[str]:
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _file_stamp(file_stat: os.stat_result) -> tuple[int, int, int]:
    return file_stat.st_mtime_ns, file_stat.st_size, file_stat.st_ino


def _is_unchanged(source: _ModuleSource) -> bool:
    try:
        return _file_stamp(os.stat(source.path)) == source.stamp  # noqa: PTH116  (as above)
    except OSError:
        return False
