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
from ostler.files import create_file, make_directory, move_file
from ostler.store.database import translated

_log = logging.getLogger(__name__)
_PART = ".part"


def copy(source: Path, target: Path) -> None:
    """Copy a database to a file of its own, complete on disk when this returns. Blocks; any thread.

    Raises:
        Conflict: The target is there already.
        StoreUnavailable: The source cannot be read or the target not written; nothing is left behind then.
    """
    if os.path.lexists(target):
        raise _taken(target)
    # SQLite knows paths alone: it works in the state directory, where nobody else can exchange anything, and what it
    # made is brought to its place by descriptors.
    part = source.with_name(f".{source.stem}-{os.urandom(8).hex()}{_PART}")
    try:
        make_directory(target.parent, 0o700)
        create_file(part, b"", mode=0o600)
        _fill(source, part)
        move_file(part, target, mode=0o600)
    except FileExistsError:
        raise _taken(target) from None
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


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} is there already", hint="choose another name; a backup never overwrites", path=target)


def clear_parts(source: Path) -> None:
    """Remove what copies that were cut off by a crash have left. Only the owner of the database may do this."""
    for part in source.parent.glob(f".{source.stem}-*{_PART}"):
        with suppress(OSError):
            part.unlink()


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
        self._drop_old(target)
        return target

    def _free_name(self, stem: str) -> Path:
        target, number = self.folder / f"{stem}.db", 1
        while target.exists():
            number += 1
            target = self.folder / f"{stem}-{number}.db"
        return target

    def _drop_old(self, made: Path) -> None:
        now = time.time_ns()

        def order(path: Path) -> tuple[bool, bool, int, Path]:
            # A copy from the future was made while the clock was wrong: it goes first, and what was just made last.
            at = path.stat().st_mtime_ns
            return path == made, at <= now, at, path

        copies = sorted(self.folder.glob(f"{self._source.stem}-*.db"), key=order)
        for path in copies[: -self._keep]:
            path.unlink(missing_ok=True)
            _log.info("the old copy %s was removed", path)
