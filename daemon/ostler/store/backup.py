"""Copies of the database, whole and consistent, made while others read and write."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from ostler.clock import Clock
from ostler.errors import Conflict, StoreUnavailable
from ostler.store.database import translated

_log = logging.getLogger(__name__)


def copy(source: Path, target: Path) -> None:
    """Copy a database to a file of its own, complete on disk when this returns. Blocks; any thread.

    Raises:
        Conflict: The target is there already.
        StoreUnavailable: The source cannot be read or the target not written; nothing is left behind then.
    """
    if target.exists():
        raise Conflict(f"{target} is there already", hint="choose another name; a backup never overwrites", path=target)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        _fill(source, part)
        _sync(part)
        part.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"the backup {target} cannot be written: {error.strerror}",
            hint="check the free space and the rights of the folder",
            path=target,
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _fill(source: Path, part: Path) -> None:
    with (
        translated(part),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as reader,
        closing(sqlite3.connect(part, isolation_level=None)) as writer,
    ):
        reader.backup(writer)
        # One file that needs no others beside it.
        writer.execute("PRAGMA journal_mode = DELETE")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Backups:
    """The folder of copies that are made before the tables change; the newest few are kept.

    Args:
        source: The database.
        keep: How many copies stay; 0 means that none is made.
        clock: The source of time.
    """

    def __init__(self, source: Path, keep: int, clock: Clock) -> None:
        self._source = source
        self._keep = keep
        self._clock = clock
        self.folder = source.parent / "backups"

    def make(self, why: str) -> Path:
        """Make a copy named for the moment and `why`, drop the oldest ones, return where the copy is."""
        if self._keep <= 0:
            _log.warning("no backup is made (%s): backups are turned off", why)
            return self._source
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.wall()))
        target = self._free_name(f"{self._source.stem}-{moment}-{why}")
        copy(self._source, target)
        _log.info("the database was copied to %s", target)
        self._drop_old()
        return target

    def _free_name(self, stem: str) -> Path:
        target, number = self.folder / f"{stem}.db", 1
        while target.exists():
            number += 1
            target = self.folder / f"{stem}-{number}.db"
        return target

    def _drop_old(self) -> None:
        copies = sorted(self.folder.glob(f"{self._source.stem}-*.db"), key=lambda path: (path.stat().st_mtime_ns, path))
        for path in copies[: -self._keep]:
            path.unlink(missing_ok=True)
            _log.info("the old copy %s was removed", path)
