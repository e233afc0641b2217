"""Opening the database file: the lock of its owner, its connections, and whether it is sound."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import peewee

from ostler.errors import StoreCorrupt, StoreError, StoreInUse, StoreUnavailable
from ostler.files import make_directory, tighten
from ostler.store.current import Database
from ostler.store.failures import RESTORE_HINT, translate
from ostler.store.identity import wal_size
from ostler.store.wal import WAL_LIMIT

_log = logging.getLogger(__name__)
APPLICATION_ID = 0x4F53544C  # "OSTL" in the header of the file, so that a stranger's database is not taken for ours
QUICK_CHECK_LIMIT = 32 * 1024 * 1024
"""Bytes up to which a database is looked through at each start; beyond that it would be felt (`ostler db check`)."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of SQLite inside the block as the store's own."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException) as error:
        ours = translate(error, path)
        if ours is error:
            raise
        raise ours from error


class OwnerLock:
    """The lock that makes one daemon the owner of a database; held from `take` to `release`, or to the process's end.

    Args:
        path: The lock file, which holds the owner's process id as text. It is never removed: that would be a race.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def take(self) -> None:
        """Take the lock, or raise at once.

        Raises:
            StoreInUse: Another daemon has it; says which process.
            StoreUnavailable: The lock file cannot be opened.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise _cannot_open(self.path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _strange(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreInUse(
                f"the state in {self.path.parent} is in use by another daemon (process {owner or 'unknown'})",
                hint="stop that one first, or give this one a state folder of its own (--root)",
                path=self.path.parent,
                pid=int(owner) if owner.isdigit() else 0,
            ) from error
        with suppress(OSError):  # a full disk keeps the number out, and the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._descriptor >= 0

    def renew(self) -> None:
        """Take the lock of a file that was made anew, if the one that is held was removed.

        Raises:
            StoreInUse: Another daemon has it by now.
            StoreUnavailable: The lock file cannot be opened.
        """
        held = self._descriptor
        with suppress(OSError):
            if os.path.samestat(self.path.lstat(), os.fstat(held)):
                return
        self.take()
        os.close(held)

    def release(self) -> None:
        """Let the lock go. Harmless when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def make_folder(folder: Path) -> None:
    """Make the state folder, for its owner alone, if there is none.

    Raises:
        StoreUnavailable: It cannot be made.
    """
    try:
        make_directory(folder, 0o700)
    except OSError as error:
        raise _cannot_open(folder, error) from error


def create_file(path: Path) -> bool:
    """Make an empty database file that only its owner can read; return whether it was missing.

    One that is there, and what lies beside it, is made its owner's alone. Call it before the first connection: closing
    a second descriptor of the file would drop SQLite's own locks on it.

    Raises:
        StoreUnavailable: It cannot be made, or there is something else in its place, such as a link.
    """
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        _check_own(each)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_open(path, error) from error
    os.close(descriptor)
    return True


def _check_own(path: Path) -> None:
    # SQLite would follow a link, and whatever lies at its end would be written.
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _strange(path)
        before = tighten(path, 0o600)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_open(path, error) from error
    if before is not None:
        _log.warning("others could read or write %s (its mode was %04o); now they cannot", path, before)


def connect(path: Path, *, synchronous: str = "FULL", busy_timeout: float = 5.0, read_only: bool = False) -> Database:
    """Open a connection to an existing database; it may be used by one thread at a time, whichever that is.

    A database that is not there is an error: made anew in silence, it would hide that everything is lost.

    Args:
        path: The database file.
        synchronous: `FULL` (a commit survives a power cut) or `NORMAL` (it survives a crash of the daemon).
        busy_timeout: Seconds to wait for a lock that another program holds.
        read_only: Whether statements that write are refused.

    Raises:
        StoreUnavailable: It cannot be opened now.
        StoreCorrupt: It is no database.
    """
    pragmas: list[tuple[str, object]] = [("foreign_keys", 1), ("synchronous", synchronous)]
    if read_only:
        pragmas.append(("query_only", 1))
    else:
        pragmas[:0] = [("journal_mode", "WAL"), ("journal_size_limit", WAL_LIMIT)]
    database = Database(
        f"{path.absolute().as_uri()}?mode=rw",
        pragmas=pragmas,
        timeout=busy_timeout,
        uri=True,
        check_same_thread=False,
        thread_safe=False,
        autoconnect=False,
    )
    with translated(path):
        database.connect()
    return database


def check_wal(path: Path) -> None:
    """Refuse a database that is damaged with the write-ahead log beside it, before the log is brought into it.

    Raises:
        StoreCorrupt: It is; the error says whether the file alone is sound.
    """
    size = wal_size(path)
    if not size or path.stat().st_size + size > QUICK_CHECK_LIMIT:
        return
    try:
        found = _quick_check(path, "mode=ro")
    except StoreError as error:
        if not isinstance(error, StoreCorrupt):
            return  # opening it for writing says more
        found = [error.message]
    if not found:
        return
    if _is_sound_alone(path):
        raise StoreCorrupt(
            f"the write-ahead log (WAL) beside {path} does not fit it, or is damaged; the file alone is sound",
            hint=f"if you have put this file there: move {path.name}-wal away, and use `ostler db restore FILE` "
            "the next time, which does that",
            path=path,
        )
    raise corrupt(path, found)


def _is_sound_alone(path: Path) -> bool:
    try:
        return not _quick_check(path, "immutable=1")
    except StoreError:
        return False


def _quick_check(path: Path, how: str) -> list[str]:
    with translated(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)").fetchall()]
    return [] if found == ["ok"] else found


def inspect(database: Database, path: Path) -> None:
    """Refuse a database that is damaged, that is somebody else's, or that cannot be written.

    Raises:
        StoreCorrupt: It is damaged.
        StoreError: It was not made by Ostler.
        StoreUnavailable: It cannot be written.
    """
    with translated(path):
        if path.stat().st_size <= QUICK_CHECK_LIMIT:
            found = [str(row[0]) for row in database.execute_sql("PRAGMA quick_check(5)").fetchall()]
            if found != ["ok"]:
                raise corrupt(path, found)
        mark = database.pragma("application_id")
        if mark != APPLICATION_ID:
            if mark or database.get_tables():
                raise StoreError(
                    f"{path} is a database of another program",
                    hint="give Ostler a state folder of its own",
                    path=path,
                )
            database.pragma("application_id", APPLICATION_ID)
        # A database on a read-only file system opens without a word; only a lock for writing tells.
        database.execute_sql("BEGIN IMMEDIATE")
        database.execute_sql("ROLLBACK")


def check(database: Database, path: Path) -> list[str]:
    """Look through the whole database; return what is wrong with it, empty when it is sound. May take minutes."""
    with translated(path):
        rows = database.execute_sql("PRAGMA integrity_check(100)").fetchall()
        found = [str(row[0]) for row in rows if row[0] != "ok"]
        for table, row_id, parent, _ in database.execute_sql("PRAGMA foreign_key_check").fetchall():
            found.append(f"row {row_id} of {table} refers to a row of {parent} that does not exist")
    return found


def corrupt(path: Path, found: list[str]) -> StoreCorrupt:
    """Return the error for a damaged database, with what was found."""
    return StoreCorrupt(
        f"the database {path} is damaged: {'; '.join(found[:5])}",
        hint=RESTORE_HINT,
        path=path,
        found=found,
    )


def _strange(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} is not a regular file", hint="somebody has put it there: move it away, and look who can", path=path
    )


def _cannot_open(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} cannot be opened: {error.strerror}",
        hint="check the owner and mode of the folder, and whether its file system is mounted read-only or full",
        path=path,
    )
