"""Copies of the database, whole and consistent, made while others read and write."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from ostler.clock import Clock
from ostler.errors import Conflict, StoreUnavailable
from ostler.files import create_file, make_directory, move_file
from ostler.store.current import Database
from ostler.store.database import corrupt, translated
from ostler.store.identity import new_id

_log = logging.getLogger(__name__)
_PART = ".part"


def copy(source: Path | Database, target: Path, work: Path | None = None) -> int:
    """Copy a database to a file of its own, checked, and complete on disk when this returns. Blocks; any thread.

    Args:
        source: The database file, or an open connection of this thread that is in no transaction.
        target: The copy.
        work: A directory in which nobody else can write; by default that of the source file, or of the target.

    Returns:
        The id of the copy.

    Raises:
        Conflict: The target is there already.
        StoreUnavailable: The source cannot be read or the target not written; nothing is left behind then.
        StoreCorrupt: The copy is not sound, because the source is not.
    """
    # SQLite knows paths alone: it works in the state directory, where nobody else can exchange anything, and what it
    # made is brought to its place by descriptors.
    home = work or (source.parent if isinstance(source, Path) else target.parent)
    part = home / f".ostler-{os.urandom(8).hex()}{_PART}"
    try:
        if os.path.lexists(target):
            raise _taken(target)
        make_directory(target.parent, 0o700)
        create_file(part, b"", mode=0o600)
        identity = _fill(source, part)
        move_file(part, target, mode=0o600)
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        raise StoreUnavailable(
            f"the backup {target} cannot be written: {error.strerror}",
            hint="check the free space and the rights of the folder",
            path=target,
        ) from error
    else:
        return identity
    finally:
        with suppress(OSError):
            part.unlink()


def _fill(source: Path | Database, part: Path) -> int:
    with ExitStack() as stack:
        stack.enter_context(translated(part))
        if isinstance(source, Path):
            uri = f"{source.absolute().as_uri()}?mode=rw"
            reader = stack.enter_context(closing(sqlite3.connect(uri, uri=True)))
        else:
            reader = source.connection()
        writer = stack.enter_context(closing(sqlite3.connect(part, isolation_level=None)))
        reader.backup(writer)
        # One file that needs no others beside it, with an id of its own: no write-ahead log belongs to it.
        writer.execute("PRAGMA journal_mode = DELETE")
        identity = new_id()
        writer.execute(f"PRAGMA user_version = {identity}")
        found = [str(row[0]) for row in writer.execute("PRAGMA quick_check(5)").fetchall()]
        if found != ["ok"]:
            raise corrupt(source if isinstance(source, Path) else part, found)
        return identity


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} is there already", hint="choose another name; a backup never overwrites", path=target)


def clear_parts(source: Path) -> None:
    """Remove what copies that were cut off by a crash have left. Only the owner of the database may do this."""
    for part in source.parent.glob(f".ostler-*{_PART}"):
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

    def make(self, why: str, source: Database | None = None, replaces: Iterable[Path] = ()) -> Path:
        """Make a copy named for the moment and `why`, drop the oldest ones, return where the copy is.

        Args:
            why: What it is made for.
            source: An open connection, when the file is not the database any more.
            replaces: Copies that are removed when this one is there.

        Raises:
            StoreError: See `copy`.
        """
        if self._keep <= 0:
            _log.warning("no backup is made (%s): backups are turned off", why)
            return self._source
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.wall()))
        target = self._free_name(f"{self._source.stem}-{moment}-{why}")
        copy(source or self._source, target, self._source.parent)
        _log.info("the database was copied to %s", target)
        for each in replaces:
            each.unlink(missing_ok=True)
        self._drop_old(target)
        return target

    def make_before_change(self, why: str) -> Path:
        """Do what `make` does, and keep one copy of each change: starts that fail must not push out useful ones.

        Raises:
            StoreError: See `copy`.
        """
        before = [*self.folder.glob(f"{self._source.stem}-*Z-{why}.db")]
        if self._keep <= 0:
            before.clear()
        return self.make(why, replaces=before)

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

        # Only those from before changes: what was saved of a replaced or restored database is for somebody to look at.
        copies = sorted(self.folder.glob(f"{self._source.stem}-*-before-*-to-*.db"), key=order)
        for path in copies[: -self._keep]:
            path.unlink(missing_ok=True)
            _log.info("the old copy %s was removed", path)
