"""Copies of the database, complete and consistent, made while others read and write."""

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
from ostler.store.session import Database
from ostler.store.sqlite_files.file_identity import new_database_id
from ostler.store.sqlite_files.sqlite_connection import corrupt_error, read_findings, translate_errors

_log = logging.getLogger(__name__)
_PART_SUFFIX = ".part"


def copy_database(source: Path | Database, target: Path, work: Path | None = None) -> int:
    """Copy a database to a file of its own, checked, and complete on disk when this returns. Blocks; any thread.

    Args:
        source: The database file, or an open connection of this thread that is in no transaction.
        target: The copy.
        work: A directory that is not writable by others; by default that of the source file, or of the target.

    Returns:
        The id of the copy.

    Raises:
        Conflict: The target already exists.
        StoreUnavailable: The source cannot be read or the target cannot be written; no file is left then.
        StoreCorrupt: The copy is damaged, because the source is.
    """
    # SQLite only takes paths: it works in the state directory, where no other user can replace anything, and the result
    # is moved to its place by descriptors.
    home = work or (source.parent if isinstance(source, Path) else target.parent)
    part = home / f".ostler-{os.urandom(8).hex()}{_PART_SUFFIX}"
    try:
        if os.path.lexists(target):
            raise _exists_error(target)
        make_directory(target.parent, 0o700)
        create_file(part, b"", mode=0o600)
        identity = _copy_pages(source, part)
        move_file(part, target, mode=0o600)
    except FileExistsError:
        raise _exists_error(target) from None
    except OSError as error:
        raise StoreUnavailable(
            f"the backup {target} cannot be written: {error.strerror}",
            hint="check the free space and the permissions of the directory",
            path=target,
        ) from error
    else:
        return identity
    finally:
        with suppress(OSError):
            part.unlink()


def _copy_pages(source: Path | Database, part: Path) -> int:
    with ExitStack() as stack:
        stack.enter_context(translate_errors(part))
        if isinstance(source, Path):
            uri = f"{source.absolute().as_uri()}?mode=rw"
            reader = stack.enter_context(closing(sqlite3.connect(uri, uri=True)))
        else:
            reader = source.connection()
        writer = stack.enter_context(closing(sqlite3.connect(part, isolation_level=None)))
        reader.backup(writer)
        # A single file with an id of its own: no write-ahead log belongs to it.
        writer.execute("PRAGMA journal_mode = DELETE")
        identity = new_database_id()
        writer.execute(f"PRAGMA user_version = {identity}")
        found = read_findings(writer.execute("PRAGMA quick_check(5)").fetchall())
        if found:
            raise corrupt_error(source if isinstance(source, Path) else part, found)
        return identity


def _exists_error(target: Path) -> Conflict:
    return Conflict(
        f"{target} already exists", hint="choose another name; a backup never overwrites a file", path=target
    )


def remove_partial_copies(source: Path) -> None:
    """Remove leftovers of copies that were interrupted by a crash. Only the owner of the database may do this."""
    for part in source.parent.glob(f".ostler-*{_PART_SUFFIX}"):
        with suppress(OSError):
            part.unlink()


class BackupDirectory:
    """The directory of copies that are made before migrations; the newest few are kept.

    Args:
        source: The database.
        max_count: How many copies are kept; 0 to make none.
        clock: The source of time.
    """

    def __init__(self, source: Path, max_count: int, clock: Clock) -> None:
        self._source = source
        self.max_count = max_count
        self._clock = clock
        self.directory = source.parent / "backups"

    def create(self, why: str, source: Database | None = None, replaces: Iterable[Path] = ()) -> Path:
        """Make a copy named by time and `why`, remove the oldest ones, return the path of the copy.

        Args:
            why: The reason, part of the name.
            source: An open connection, when the file is not the database any longer.
            replaces: Copies that are removed when this one is complete.

        Raises:
            StoreError: See `copy`.
        """
        if self.max_count <= 0:
            _log.warning("no backup created (%s): backups are turned off", why)
            return self._source
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.wall()))
        target = self._free_name(f"{self._source.stem}-{moment}-{why}")
        copy_database(source or self._source, target, self._source.parent)
        _log.info("the database was copied to %s", target)
        for each in replaces:
            each.unlink(missing_ok=True)
        self._remove_oldest(target)
        return target

    def create_before_migration(self, why: str) -> Path:
        """Do what `make` does, and keep one copy per change: repeated failed starts must not displace useful copies.

        Raises:
            StoreError: See `copy`.
        """
        # Several starts in one second: their copies are numbered.
        copies = (f"{self._source.stem}-*Z-{why}.db", f"{self._source.stem}-*Z-{why}-[0-9]*.db")
        before = [path for each in copies for path in self.directory.glob(each)]
        if self.max_count <= 0:
            before.clear()
        return self.create(why, replaces=before)

    def _free_name(self, stem: str) -> Path:
        target, number = self.directory / f"{stem}.db", 1
        while target.exists():
            number += 1
            target = self.directory / f"{stem}-{number}.db"
        return target

    def _remove_oldest(self, made: Path) -> None:
        now = time.time_ns()

        def order(path: Path) -> tuple[bool, bool, int, Path]:
            # A copy from the future was made while the clock was wrong: it is removed first, and the newest one last.
            at = path.stat().st_mtime_ns
            return path == made, at <= now, at, path

        # Only copies from before migrations: those of a replaced or restored database are for the operator to inspect.
        copies = sorted(self.directory.glob(f"{self._source.stem}-*-before-*-to-*.db"), key=order)
        for path in copies[: -self.max_count]:
            path.unlink(missing_ok=True)
            _log.info("the old copy %s was removed", path)
