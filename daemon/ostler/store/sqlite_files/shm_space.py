"""Room for the index of the write-ahead log on file systems with small blocks, so that a full one ends no process.

SQLite maps that index into memory, and writes one byte of each 4 KiB before, which gives it room on most file systems.
Where blocks are smaller (ext4 below 512 MiB has 1 KiB), parts of it have none, and a write to them on a full disk ends
the process with SIGBUS.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ostler.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_PAGE_SIZE = 4096
_MIN_FREE = 256 * 1024
"""Bytes that must be free on such a file system before the database is opened: the index, and the write-ahead log."""
_INDEX_SIZE = 192 * 1024
"""Bytes of the index of a write-ahead log of 64 MiB, and more."""


class ShmSpace:
    """Room for the index of one database. Any thread, one at a time.

    Args:
        database: The database file; its directory exists.
        page_size: Files on file systems with blocks of this size, in bytes, or more need nothing.
    """

    def __init__(self, database: Path, page_size: int = _PAGE_SIZE) -> None:
        self._database = database
        self._page_size = page_size
        self._descriptor = -1

    def require(self) -> None:
        """Refuse to open the database where its index might find no room. Call it before the first connection.

        Raises:
            StoreUnavailable: Its file system is nearly full.
        """
        status = os.statvfs(self._database.parent)
        if status.f_frsize >= self._page_size or status.f_bavail * status.f_frsize >= _MIN_FREE:
            return
        raise StoreUnavailable(
            f"the database {self._database} cannot be opened: no space left on the device",
            hint=f"free {_MIN_FREE // 1024} KiB on its file system; the daemon then continues automatically",
            path=self._database,
            reason="SQLITE_FULL",
        )

    def allocate(self) -> None:
        """Give the whole index room. Call it after the first connection, which makes the file."""
        if self._descriptor >= 0 or os.statvfs(self._database.parent).f_frsize >= self._page_size:
            return
        path = self._database.with_name(f"{self._database.name}-shm")
        try:
            # Stays open: closing any descriptor of the file drops the locks that SQLite has on it.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.posix_fallocate(self._descriptor, 0, _INDEX_SIZE)
        except OSError as error:
            _log.debug("cannot allocate %s: %s", path, error)

    def close(self) -> None:
        """Close the descriptor; after all connections. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
