"""A driver that checks archives with native code, which trusts what it reads: run it in a process of its own."""

from __future__ import annotations

import ctypes
import struct
import tarfile
import zlib
from pathlib import Path

from ostler import DriverError

from ostler_backup.directory import DirectoryDriver

_ENTRY = struct.Struct("<QQI")
"""Where the content of a file is in the archive, how long it is, and its checksum."""


class NativeDriver(DirectoryDriver):
    """As `DirectoryDriver`, with a file `NAME.index` that tells where in the archive each file is.

    Like many a library in C, `verify` follows the index without a look at the size of the archive: one that is damaged
    ends the process with SIGSEGV. With `isolation = "process"` that is the driver's process, and not the daemon.
    """

    def store(self, archive: str, source: Path) -> int:
        """Store the archive, and then its index."""
        size = super().store(archive, source)
        with tarfile.open(self._file(archive)) as tar, self._file(archive).open("rb") as raw:
            entries = []
            for member in tar:
                raw.seek(member.offset_data)
                entries.append(_ENTRY.pack(member.offset_data, member.size, zlib.crc32(raw.read(member.size))))
        self._index_file(archive).write_bytes(b"".join(entries))
        return size

    def verify(self, archive: str) -> None:
        """Compare the signature, and the checksum of each file."""
        super().verify(archive)
        content = self._file(archive).read_bytes()
        memory = ctypes.create_string_buffer(content, len(content))
        for offset, length, checksum in _ENTRY.iter_unpack(self._index_file(archive).read_bytes()):
            if zlib.crc32(ctypes.string_at(ctypes.addressof(memory) + offset, length)) != checksum:
                raise DriverError(f"archive {archive} was changed", hint="do not restore it; back up its source again")

    def remove(self, archive: str) -> None:
        """Remove all three files."""
        super().remove(archive)
        self._index_file(archive).unlink(missing_ok=True)

    def _index_file(self, archive: str) -> Path:
        return self.options.path / f"{archive}.index"
