"""Room that is kept for the database on a disk that others fill: a file that is there for nothing else.

Giving room back needs a few blocks itself: the record of a volume that is deleted has to go. On a full disk the file is
made shorter step by step, and what is written next has its blocks.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)
RESERVED_SIZE = 8 * 2**20
RELEASE_STEP = 2**20
_REFILL_FACTOR = 8
"""The disk must have this many times the size left before the file is made whole again."""
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_NO_COPY_ON_WRITE = 0x00800000


class ReservedSpace:
    """A file alongside the database that gives way when the disk is full. Any thread but the loop's.

    Args:
        database: The database file.
        size: The room that is kept, in bytes.
        step: How much of it is given at once.
    """

    def __init__(self, database: Path, size: int = RESERVED_SIZE, step: int = RELEASE_STEP) -> None:
        self.path = database.with_suffix(".spare")
        self._size = size
        self._step = step
        self._in_use = ""

    def refill(self) -> bool:
        """Make the file whole if the disk has plenty of room; return whether it is whole then."""
        try:
            if self._file_size() >= self._size:
                self._in_use = ""
                return True
            status = os.statvfs(self.path.parent)
            if status.f_bavail * status.f_frsize < _REFILL_FACTOR * self._size:
                return False
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                # Step by step, so that btrfs makes an extent of each: it frees an extent as a whole.
                for at in range(0, self._size, self._step):
                    os.posix_fallocate(descriptor, at, self._step)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.debug("cannot reserve disk space for the database: %s", error)
            return False
        self._in_use = ""
        return True

    def release(self) -> bool:
        """Give a part of the room, so that the database has it; return whether there was any."""
        try:
            left = self._file_size() - self._step
            if left <= -self._step:
                return False
            if left > 0:
                os.truncate(self.path, left)
            else:
                self.path.unlink()
        except OSError as error:
            _log.debug("cannot release the disk space reserved for the database: %s", error)
            return False
        self._in_use = (
            f"the disk of {self.path.parent} was full: the database uses its reserved disk space, "
            f"{max(0, left) // 1024} KiB are left; it is reserved again when "
            f"{_REFILL_FACTOR * self._size // 2**20} MiB are free"
        )
        _log.warning("%s", self._in_use)
        return True

    def problems(self) -> list[str]:
        """Return a line while the reserved space is in use, for `ostler status`. Any thread."""
        line = self._in_use
        return [line] if line else []

    def _file_size(self) -> int:
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0


def disable_shm_copy_on_write(database: Path) -> None:
    """Have the index of the write-ahead log overwritten in place on btrfs; call it before the first connection.

    SQLite maps that file into memory. Where each write goes to a new block, one on a full disk ends the process with
    SIGBUS. Other file systems overwrite anyway, and there nothing is made.

    Args:
        database: The database file; nobody has it open.
    """
    path = database.with_name(f"{database.name}-shm")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # it is left from before, or whoever opens the database says more
        return
    try:
        flags = bytearray(8)
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
        wanted = struct.unpack_from("=I", flags)[0] | _NO_COPY_ON_WRITE
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("=Q", wanted))
    except OSError:
        with suppress(OSError):
            path.unlink()
    finally:
        os.close(descriptor)
