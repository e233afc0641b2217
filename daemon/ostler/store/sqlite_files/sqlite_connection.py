"""Opens the database file: the lock of its owner, its connections, and integrity checks."""

from __future__ import annotations

import errno
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
from ostler.files import make_directory, restrict_mode
from ostler.store.session import Database
from ostler.store.sqlite_errors import RESTORE_HINT, translate_error
from ostler.store.sqlite_files.file_identity import wal_size
from ostler.store.sqlite_files.wal_monitor import MAX_WAL_SIZE

_log = logging.getLogger(__name__)
APPLICATION_ID = 0x4F53544C  # "OSTL" in the header of the file, so that a database of another program is recognised
_CHECK_LOCK_WAIT = 0.2
"""Seconds that a check waits for a lock of another program: it is no reason to refuse a start."""
QUICK_CHECK_LIMIT = 32 * 1024 * 1024
"""Bytes up to which a database is checked at each start; larger ones would delay it (`ostler db check`)."""


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate errors of SQLite inside the block to those of the store."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException) as error:
        ours = translate_error(error, path)
        if ours is error:
            raise
        raise ours from error


class OwnerLock:
    """Makes one daemon the owner of a database, from `acquire` to `release` or the end of the process.

    Args:
        path: The lock file, which holds the owner's process id as text. It is never removed: that would be a race.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Acquire the lock, or raise at once.

        Raises:
            StoreInUse: Another daemon holds it; names the process.
            StoreUnavailable: The lock file cannot be opened.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise _open_error(self.path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _foreign_file_error(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreInUse(
                f"the state in {self.path.parent} is in use by another daemon (process {owner or 'unknown'})",
                hint="stop that one first, or give this one a state directory of its own (--root)",
                path=self.path.parent,
                pid=int(owner) if owner.isdigit() else 0,
            ) from error
        with suppress(OSError):  # on a full disk the number cannot be written; the lock works without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._descriptor >= 0

    def reacquire(self) -> None:
        """Acquire the lock again on a new file, if the locked file was removed.

        Raises:
            StoreInUse: Another daemon holds it by now.
            StoreUnavailable: The lock file cannot be opened.
        """
        held = self._descriptor
        with suppress(OSError):
            if os.path.samestat(self.path.lstat(), os.fstat(held)):
                return
        self.acquire()
        os.close(held)

    def release(self) -> None:
        """Release the lock. Harmless when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def make_state_directory(directory: Path) -> None:
    """Create the state directory, accessible to its owner only, if it does not exist.

    Raises:
        StoreUnavailable: It cannot be created.
    """
    try:
        make_directory(directory, 0o700)
    except OSError as error:
        raise _open_error(directory, error) from error


def create_file(path: Path) -> bool:
    """Create an empty database file that only its owner can read; return whether it was missing.

    The mode of an existing file, and of those next to it, is restricted to its owner. Call it before the first
    connection: closing a second descriptor of the file would drop SQLite's own locks on it.

    Raises:
        StoreUnavailable: It cannot be created, or something else has its name, such as a link.
    """
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        _check_owner(each)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise _open_error(path, error) from error
    os.close(descriptor)
    return True


def _check_owner(path: Path) -> None:
    # SQLite would follow a link and write to its target.
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _foreign_file_error(path)
        before = restrict_mode(path, 0o600)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _open_error(path, error) from error
    if before is not None:
        _log.warning("%s was accessible to other users (mode %04o); its mode has been fixed", path, before)


def connect(path: Path, *, synchronous: str = "FULL", busy_timeout: float = 5.0, read_only: bool = False) -> Database:
    """Open a connection to an existing database; it may be used by any thread, one at a time.

    A missing database is an error: to create it silently would hide the loss of all data.

    Args:
        path: The database file.
        synchronous: `FULL` (a commit survives a power cut) or `NORMAL` (it survives a crash of the daemon).
        busy_timeout: Seconds to wait for a lock that another program holds.
        read_only: Whether statements that write are refused.

    Raises:
        StoreUnavailable: It cannot be opened now.
        StoreCorrupt: It is not a database.
    """
    pragmas: list[tuple[str, object]] = [("foreign_keys", 1), ("synchronous", synchronous)]
    if read_only:
        pragmas.append(("query_only", 1))
    else:
        pragmas[:0] = [("journal_mode", "WAL"), ("journal_size_limit", MAX_WAL_SIZE)]
    database = Database(
        f"{path.absolute().as_uri()}?mode=rw",
        pragmas=pragmas,
        timeout=busy_timeout,
        uri=True,
        check_same_thread=False,
        thread_safe=False,
        autoconnect=False,
    )
    with translate_errors(path):
        database.connect()
    return database


@contextmanager
def limit_lock_wait(database: Database, seconds: float) -> Iterator[None]:
    """Wait no longer than this for locks of other programs inside the block.

    Args:
        database: The connection; no statement may be running on it.
        seconds: The most; a connection that waits for less keeps that.
    """
    usual = int(database.pragma("busy_timeout"))
    database.pragma("busy_timeout", int(min(usual, seconds * 1000)))
    try:
        yield
    finally:
        database.pragma("busy_timeout", usual)


def connect_for_check(path: Path, *, ignore_wal: bool = False) -> Database:
    """Open a connection that cannot change the database, nor the files beside it; a daemon may be using it.

    Args:
        path: The database file.
        ignore_wal: Whether the write-ahead log is not read: it belongs to another database, or cannot be opened.

    Raises:
        StoreUnavailable: It cannot be read now.
        StoreCorrupt: It is not a database.
    """
    how = "immutable=1" if ignore_wal else "mode=ro"
    uri = f"{path.absolute().as_uri()}?{how}"
    database = Database(uri, timeout=_CHECK_LOCK_WAIT, uri=True, thread_safe=False, autoconnect=False)
    with translate_errors(path):
        database.connect()
    return database


def check_file_types(path: Path) -> None:
    """Refuse something else than regular files in the places of the database and those beside it. Changes nothing.

    Raises:
        StoreUnavailable: One of them is a link, a directory or a device, or may not be read and written by this user.
    """
    beside = (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"), path.with_suffix(".lock"))
    for each in beside:
        try:
            if not stat.S_ISREG(each.lstat().st_mode):
                raise _foreign_file_error(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _open_error(each, error) from error
        if not os.access(each, os.R_OK | os.W_OK, effective_ids=True) and not is_read_only(each):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise _open_error(each, denied) from denied


def is_read_only(path: Path) -> bool:
    """Return whether the file system of an existing file or directory is mounted read-only."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def check_wal(path: Path) -> None:
    """Refuse a database that is damaged together with its write-ahead log, before the log is checkpointed.

    Raises:
        StoreCorrupt: It is; the error says whether the file alone is intact.
    """
    size = wal_size(path)
    if not size or path.stat().st_size + size > QUICK_CHECK_LIMIT:
        return
    try:
        found = _quick_check(path, "mode=ro")
    except StoreError as error:
        if not isinstance(error, StoreCorrupt):
            return  # opening it for writing reports more
        found = [error.message]
    if not found:
        return
    if _is_sound_without_wal(path):
        raise StoreCorrupt(
            f"the write-ahead log (WAL) of {path} does not belong to it or is damaged; the file alone is intact",
            hint=f"if you copied the file there: move {path.name}-wal away; next time use `ostler db restore FILE`, "
            "which does that",
            path=path,
        )
    raise corrupt_error(path, found)


def _is_sound_without_wal(path: Path) -> bool:
    try:
        return not _quick_check(path, "immutable=1")
    except StoreError:
        return False


def _quick_check(path: Path, how: str) -> list[str]:
    with translate_errors(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as connection:
        return read_findings(connection.execute("PRAGMA quick_check(5)").fetchall())


def read_findings(rows: list[tuple[object, ...]]) -> list[str]:
    """Return what a check of SQLite says, a line each; empty when the database is intact."""
    lines = [line for row in rows for line in str(row[0]).splitlines()]
    return [line for line in lines if line != "ok" and not line.startswith("***")]


def check_content(database: Database, path: Path) -> bool:
    """Refuse a database that is damaged or of another program; return whether it is new. Changes nothing.

    Raises:
        StoreCorrupt: It is damaged.
        StoreError: It was not created by Ostler.
    """
    with translate_errors(path):
        if path.stat().st_size <= QUICK_CHECK_LIMIT:
            found = read_findings(database.execute_sql("PRAGMA quick_check(5)").fetchall())
            if found:
                raise corrupt_error(path, found)
        mark = database.pragma("application_id")
        if mark == APPLICATION_ID:
            return False
        if mark or database.get_tables():
            raise StoreError(
                f"{path} is a database of another program",
                hint="give Ostler a state directory of its own",
                path=path,
            )
        return True


def check_usable(database: Database, path: Path) -> None:
    """Refuse a database that is damaged, of another program, or not writable.

    Raises:
        StoreCorrupt: It is damaged.
        StoreError: It was not created by Ostler.
        StoreUnavailable: It cannot be written.
    """
    is_new = check_content(database, path)
    with translate_errors(path):
        if is_new:
            database.pragma("application_id", APPLICATION_ID)
        # A database on a read-only file system opens silently; only a lock for writing tells.
        database.execute_sql("BEGIN IMMEDIATE")
        database.execute_sql("ROLLBACK")


def check_integrity(database: Database, path: Path) -> list[str]:
    """Check the whole database; return what is wrong with it, empty when it is intact. May take minutes."""
    with translate_errors(path):
        found = read_findings(database.execute_sql("PRAGMA integrity_check(100)").fetchall())
        if found:
            return found  # the references of a damaged table cannot be followed
        for table, row_id, parent, _ in database.execute_sql("PRAGMA foreign_key_check").fetchall():
            found.append(f"row {row_id} of {table} refers to a row of {parent} that does not exist")
    return found


def corrupt_error(path: Path, found: list[str]) -> StoreCorrupt:
    """Return the error for a damaged database, with what was found."""
    return StoreCorrupt(
        f"the database {path} is damaged: {'; '.join(found[:5])}",
        hint=RESTORE_HINT,
        path=path,
        found=found,
    )


def _foreign_file_error(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} is not a regular file", hint="move it away, and check who can write to the directory", path=path
    )


def _open_error(path: Path, error: OSError) -> StoreUnavailable:
    hint = "check the owner and mode of the directory, and whether its file system is mounted read-only or full"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        hint = "a file has the name of a directory: move it away, or choose another `--root`"
    return StoreUnavailable(f"{path} cannot be opened: {error.strerror}", hint=hint, path=path)
