"""A write-ahead log that grows because it cannot be brought into the database: somebody reads without an end."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from ostler.clock import Clock

_log = logging.getLogger(__name__)
WAL_LIMIT = 64 * 1024 * 1024
"""Bytes; a log that could be brought into the database is cut to this."""


class WalGrowth:
    """Says when the write-ahead log outgrows its limit, and when it is back. `look` on the writer's thread.

    Args:
        path: The database file.
        clock: The source of time.
        limit: Bytes that it may have.
    """

    def __init__(self, path: Path, clock: Clock, limit: int = WAL_LIMIT) -> None:
        self._path = path
        self._clock = clock
        self._limit = limit
        self._since: float | None = None
        self._size = 0

    def look(self, size: int) -> None:
        """Take note of the size after a commit."""
        self._size = size
        if size <= self._limit:
            if self._since is not None:
                self._since = None
                _log.warning("the write-ahead log of %s has been brought into the database", self._path)
        elif self._since is None:
            self._since = self._clock.wall()
            _log.warning("%s", self._text())

    def problems(self) -> list[str]:
        """Return a line when the log is too large, for `ostler status`. Any thread."""
        return [self._text()] if self._since is not None else []

    def _text(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._since))
        readers = ", ".join(locking(self._path.with_name(f"{self._path.name}-shm"))) or "a reader"
        return (
            f"the write-ahead log of {self._path} has {self._size // 2**20} MiB, too many since {since}, and cannot be "
            f"brought into the database: {readers} holds it open; end that read (an sqlite3 shell, a backup tool)"
        )


def locking(path: Path) -> list[str]:
    """Return the other processes that have locks on a file; empty when it cannot be told."""
    found: dict[str, None] = {}
    with suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.replace("-> ", "").split()
            if words[5].rpartition(":")[2] == inode and int(words[4]) not in (os.getpid(), -1, 0):
                found[_process(words[4])] = None
    return list(found)


def _process(pid: str) -> str:
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text('utf-8', 'replace').strip()} (process {pid})"
    return f"process {pid}"
