"""A driver that checks archives with native code, which trusts what it reads: run it in a process of its own."""

from __future__ import annotations

import ctypes
import struct
import tarfile
import threading
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

    def initialise(self) -> None:
        """Write the index again that a process was reading when it ended."""
        super().initialise()
        self._checking = threading.Lock()
        if self._mark.exists():
            archive = self._mark.read_text()
            self.log.warning("a process ended while it checked %s; its index is written again", archive)
            try:
                super().verify(archive)
                self._write_index(archive)
            except DriverError:  # the archive itself is missing or was changed
                self._index_file(archive).unlink(missing_ok=True)
            self._mark.unlink()

    def store(self, archive: str, source: Path) -> int:
        """Check the archive before this one, store the archive, and then its index."""
        self._check_last(archive.rpartition("-")[0])
        size = super().store(archive, source)
        self._write_index(archive)
        return size

    def verify(self, archive: str) -> None:
        """Compare the signature, and the checksum of each file."""
        super().verify(archive)
        content = self._file(archive).read_bytes()
        memory = ctypes.create_string_buffer(content, len(content))
        with self._checking:
            self._mark.write_text(archive)  # the next process knows by it what ended this one
            try:
                is_whole = all(
                    zlib.crc32(ctypes.string_at(ctypes.addressof(memory) + offset, length)) == checksum
                    for offset, length, checksum in _ENTRY.iter_unpack(self._index_file(archive).read_bytes())
                )
            finally:
                self._mark.unlink()
        if not is_whole:
            raise DriverError(f"archive {archive} was changed", hint="do not restore it; back up its source again")

    def remove(self, archive: str) -> None:
        """Remove all three files."""
        super().remove(archive)
        self._index_file(archive).unlink(missing_ok=True)

    def _index_file(self, archive: str) -> Path:
        return self.options.path / f"{archive}.index"

    @property
    def _mark(self) -> Path:
        return self.options.path / ".checking"

    def _check_last(self, source: str) -> None:
        """Check the last archive of a source while there are older ones; a changed one is no reason to store none."""
        archives = sorted(self.options.path.glob(f"{source}-*.tar"), key=lambda path: path.stat().st_mtime)
        try:
            if archives:
                self.verify(archives[-1].name)
        except DriverError as error:
            self.log.warning("%s; a new one is stored", error)

    def _write_index(self, archive: str) -> None:
        with tarfile.open(self._file(archive)) as tar, self._file(archive).open("rb") as raw:
            entries = []
            for member in tar:
                raw.seek(member.offset_data)
                entries.append(_ENTRY.pack(member.offset_data, member.size, zlib.crc32(raw.read(member.size))))
        self._index_file(archive).write_bytes(b"".join(entries))
