"""Detects a write-ahead log that grows because it cannot be checkpointed during an endless read."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from ostler.clock import Clock
from ostler.time_text import format_moment

_log = logging.getLogger(__name__)
MAX_WAL_SIZE = 64 * 1024 * 1024
"""Bytes; a checkpointed log is truncated to this."""


class WalMonitor:
    """Logs when the write-ahead log exceeds its limit, and when it no longer does. `check` on the writer's thread.

    Args:
        path: The database file.
        clock: The source of time.
        limit: The most bytes.
    """

    def __init__(self, path: Path, clock: Clock, limit: int = MAX_WAL_SIZE) -> None:
        self._path = path
        self._clock = clock
        self._limit = limit
        self._since: float | None = None
        self._size = 0

    def check(self, size: int) -> None:
        """Record the size after a commit."""
        self._size = size
        if size <= self._limit:
            if self._since is not None:
                self._since = None
                _log.warning("the write-ahead log of %s has been checkpointed", self._path)
        elif self._since is None:
            self._since = self._clock.wall()
            _log.warning("%s", self._problem_line())

    def problems(self) -> list[str]:
        """Return a line when the log is too large, for `ostler status`. Any thread."""
        return [self._problem_line()] if self._since is not None else []

    def _problem_line(self) -> str:
        since = format_moment(self._since or 0.0)
        readers = ", ".join(locking_processes(self._path.with_name(f"{self._path.name}-shm"))) or "a reader"
        return (
            f"the write-ahead log of {self._path} has {self._size // 2**20} MiB, too many since {since}, and cannot be "
            f"checkpointed: {readers} holds it open; end that read (an sqlite3 shell, a backup tool)"
        )


def locking_processes(path: Path) -> list[str]:
    """Return the other processes that have locks on a file; empty when it cannot be determined."""
    found: dict[str, None] = {}
    with suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.replace("-> ", "").split()
            if words[5].rpartition(":")[2] == inode and int(words[4]) not in (os.getpid(), -1, 0):
                found[_process_name(words[4])] = None
    return list(found)


def _process_name(pid: str) -> str:
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text('utf-8', 'replace').strip()} (process {pid})"
    return f"process {pid}"
