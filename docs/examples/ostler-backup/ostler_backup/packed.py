"""A driver that packs archives with a C library, in a process of its own: that is what a fault of the library ends."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import tarfile
import threading
import zlib
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ostler import DriverError, DriverOptions, Field

from ostler_backup.driver import BackupDriver

HEADER, TRAILER = struct.Struct(">8sQ"), struct.Struct(">I")
"""Around the tar file, which is packed as gzip does: `MAGIC` and how many bytes it has, and their checksum."""
MAGIC = b"packed1\n"
BLOCK = 1 << 20


class PackedOptions(DriverOptions):
    """Options of `driver = "packed"`."""

    path: Path = Field(help="Directory of the archives", reload="driver")
    isolation: Literal["thread", "process"] = Field(
        "process", help="Where it runs; in a thread, a crash of the library ends the daemon", reload="driver"
    )


class PackedDriver(BackupDriver[PackedOptions]):
    """Packed archives in a directory; before one is stored, the last one is checked, while there are older ones.

    The check has a fault on purpose, one that many C programs have: it believes the length that an archive says it has.
    A broken one makes it read memory that is not there, and the kernel ends the process with SIGSEGV. The next process
    looks at what was being checked in a way that cannot crash, and sets it aside: it ends one process, and not each.
    """

    def initialise(self) -> None:
        """Load the library, and clear up what a crash has left."""
        if not self.options.path.is_dir():
            raise DriverError(f"directory {self.options.path} not found", hint="create or mount it")
        self._library = load_library()
        self._checking = threading.Lock()
        for partial in self.options.path.glob(".*.part"):
            partial.unlink()
        if self._marker.exists():
            archive = self._marker.read_text()
            if self._file(archive).is_file() and not is_whole(self._file(archive)):
                self._set_aside(archive)
            self._marker.unlink()

    def store(self, archive: str, source: Path) -> int:
        """Pack into a temporary file, which gets its name when it is complete and on disk."""
        if (last := self._last_archive()) and not self._is_unchanged(last):
            self._set_aside(last)
        partial = self.options.path / f".{archive}.part"
        try:
            with partial.open("w+b", buffering=0) as file:
                file.write(HEADER.pack(MAGIC, 0))
                self._pack(source, file)
                length, checksum = sum_up(file)
                file.write(TRAILER.pack(checksum))
                file.seek(0)
                file.write(HEADER.pack(MAGIC, length))
                os.fsync(file.fileno())
            partial.replace(self._file(archive))
        finally:
            partial.unlink(missing_ok=True)
        return self._file(archive).stat().st_size

    def verify(self, archive: str) -> None:
        """Compare the checksum."""
        if not (self._file(archive).exists() or self._aside(archive).exists()):
            raise DriverError(f"archive {archive} is missing", hint="back up its source again")
        if self._aside(archive).exists() or not self._is_unchanged(archive):
            raise DriverError(f"archive {archive} was changed", hint="do not restore it; back up its source again")

    def remove(self, archive: str) -> None:
        """Remove it, also when it was set aside."""
        self._file(archive).unlink(missing_ok=True)
        self._aside(archive).unlink(missing_ok=True)

    def _pack(self, source: Path, file: FileIO) -> None:
        files = sorted(source.rglob("*"))
        with (
            closing(GzipStream(self._library, file)) as stream,
            tarfile.open(fileobj=cast("BinaryIO", stream), mode="w|") as tar,
        ):
            for number, each in enumerate(files, 1):
                tar.add(each, each.relative_to(source), recursive=False)
                self.progress(number, len(files), f"packing {each.name}")

    def _is_unchanged(self, archive: str) -> bool:
        if self._file(archive).stat().st_size < HEADER.size:
            return False
        with self._checking, self._file(archive).open("rb") as file:
            self._marker.write_text(archive)
            try:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
                    magic, length = HEADER.unpack_from(memory)
                    return magic == MAGIC and self._has_checksum(memory, length)
            finally:
                self._marker.unlink()

    def _has_checksum(self, memory: mmap.mmap, length: int) -> bool:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + HEADER.size
        (expected,) = TRAILER.unpack(ctypes.string_at(begin + length, TRAILER.size))  # the fault: who says it is there?
        checksum = 0
        for offset in range(0, length, BLOCK):
            checksum = self._library.crc32(checksum, begin + offset, min(BLOCK, length - offset))
        return bool(checksum == expected)

    def _last_archive(self) -> str:
        archives = [path for path in self.options.path.glob("*.tar") if not path.name.startswith(".")]
        return max(archives, key=lambda path: path.stat().st_mtime).name if archives else ""

    def _set_aside(self, archive: str) -> None:
        self.log.warning("archive %s is broken; it is set aside", archive)
        self._file(archive).rename(self._aside(archive))

    @property
    def _marker(self) -> Path:
        return self.options.path / ".checking"

    def _file(self, archive: str) -> Path:
        return self.options.path / archive

    def _aside(self, archive: str) -> Path:
        return self.options.path / f"{archive}.broken"


class GzipStream:
    """What tarfile writes to: packs it into an open file, from where that is, with the C library."""

    def __init__(self, library: ctypes.CDLL, file: FileIO) -> None:
        self._library = library
        self._handle = library.gzdopen(os.dup(file.fileno()), b"wb6")

    def write(self, data: bytes) -> int:
        """Pack more."""
        if self._library.gzwrite(self._handle, data, len(data)) != len(data):
            raise DriverError("packing failed", hint="look whether there is space on the disk")
        return len(data)

    def close(self) -> None:
        """Write the rest."""
        if self._library.gzclose(self._handle) != 0:
            raise DriverError("packing failed", hint="look whether there is space on the disk")


def load_library() -> ctypes.CDLL:
    """Load zlib, and declare what is used of it."""
    try:
        library = ctypes.CDLL("libz.so.1")
    except OSError as error:
        raise DriverError(f"zlib cannot be loaded: {error}", hint="install it, as zlib1g for instance") from None
    functions: dict[str, tuple[Any, list[Any]]] = {
        "crc32": (ctypes.c_ulong, [ctypes.c_ulong, ctypes.c_void_p, ctypes.c_uint]),
        "gzdopen": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]),
        "gzwrite": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]),
        "gzclose": (ctypes.c_int, [ctypes.c_void_p]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def sum_up(file: FileIO, length: int = sys.maxsize) -> tuple[int, int]:
    """Return how many bytes follow the header of an open archive, up to `length`, and their checksum."""
    file.seek(HEADER.size)
    done = checksum = 0
    while block := file.read(min(BLOCK, length - done)):
        done, checksum = done + len(block), zlib.crc32(block, checksum)
    return done, checksum


def is_whole(archive: Path) -> bool:
    """Return whether an archive is what it says it is; whatever is in it, this does not crash."""
    with archive.open("rb", buffering=0) as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            return False
        _, length = HEADER.unpack(header)
        found, checksum = sum_up(file, min(length, sys.maxsize))
        return found == length and file.read() == TRAILER.pack(checksum)
