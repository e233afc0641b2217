"""Recognises the daemon's own database file, while it is open and before SQLite opens it.

SQLite finds a write-ahead log by its name alone and checkpoints it into any file with the name of the database. So each
run of a daemon stamps the database with an id (`user_version`, in the file's header), each backup gets its own id,
and the file `ostler.identity` says which database a write-ahead log belongs to. Inodes tell the rest while it is open.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import stat
import struct
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path

import peewee

from ostler.errors import StoreError, StoreUnavailable
from ostler.files import replace_file
from ostler.store.session import Database

_log = logging.getLogger(__name__)
_ID_OFFSET = 60
"""The offset of `user_version` in the file, a big-endian number of 32 bits."""
_WAL_HEADER_SIZE = 32
"""Bytes of an empty write-ahead log."""
_SHARED_LOCK_OFFSET, _SHARED_LOCK_SIZE = 0x40000002, 510
"""The bytes of the database file that SQLite locks for reading."""


class DatabaseFileState(Enum):
    """The state of the files of an open database."""

    OURS = ""
    REMOVED = "was removed"
    REPLACED = "was replaced by another file"
    OVERWRITTEN = "was overwritten with another database"
    WAL_REMOVED = "lost its write-ahead log, which was removed,"
    HIDDEN = "became inaccessible"
    """Its directory is not accessible, or its file system fails: its state is unknown, and nothing must be done."""


class IdentityFile:
    """The ids of the database that a write-ahead log belongs to, stored in a file.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._database = path
        self.path = path.with_suffix(".identity")

    def ids(self) -> frozenset[int] | None:
        """Return the ids; empty when the log belongs to a file that no longer exists; None if nothing is known."""
        try:
            words = self.path.read_text("ascii").split()
            return frozenset(int(word, 16) for word in words)
        except (OSError, ValueError):
            return None

    def write(self, *ids: int) -> None:
        """Store the ids durably.

        Raises:
            OSError: They cannot be written.
        """
        replace_file(self.path, "".join(f"{each:08x}\n" for each in ids).encode("ascii"), mode=0o600)


class HeaderFile:
    """Reads the id in the header of the database file, through a descriptor that stays open. Any thread, one at a time.

    Closing any descriptor of a file drops all locks that the process has on it. A connection that failed while the
    database was opened may live on for a while, as its error refers to it, and SQLite takes its locks to be there:
    another program that closes the database would then remove the write-ahead log that this one uses.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def read_id(self) -> int:
        """Return the id in the header of the file at the path; 0 if it has none.

        Raises:
            OSError: It cannot be read.
        """
        if self._descriptor < 0 or not os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):
            self.close()
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return read_database_id(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; after all connections. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def new_database_id() -> int:
    """Return a unique id."""
    return random.SystemRandom().randrange(1, 2**31)


def read_database_id(descriptor: int) -> int:
    """Return the id in the header of an open file; 0 if it has none."""
    data = os.pread(descriptor, 4, _ID_OFFSET)
    return struct.unpack(">I", data)[0] if len(data) == 4 else 0


def assign_new_id(database: Database, path: Path) -> frozenset[int]:
    """Give the database a new id for this run; return the ids that its header may have from now on.

    On a disk that is or becomes unwritable it may be the old one, which is valid as well.
    """
    identity, before, fresh = IdentityFile(path), int(database.pragma("user_version")), new_database_id()
    with suppress(OSError, peewee.OperationalError):
        identity.write(before, fresh)
        database.execute_sql(f"PRAGMA user_version = {fresh}")
        if database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return frozenset((before, fresh))  # a read is in progress, and the header is written to the file later
        identity.write(fresh)
        return frozenset((fresh,))
    return frozenset((before, fresh, int(database.pragma("user_version"))))


def wal_path(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def wal_size(path: Path) -> int:
    """Return how much the write-ahead log of a database holds, in bytes; 0 when there is none."""
    try:
        found = wal_path(path).lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size > _WAL_HEADER_SIZE else 0


def raise_if_lost(path: Path) -> None:
    """Refuse to start with an empty database where one existed.

    Raises:
        StoreError: The database is missing or empty, but other files show that one existed.
    """
    try:
        if path.lstat().st_size:
            return
        what = "is empty"
    except FileNotFoundError:
        what = "is missing"
    except OSError:
        return  # opening it reports more
    signs = [wal_path(path).name] if wal_size(path) else []
    signs += [each.name for each in (IdentityFile(path).path, path.parent / "backups") if each.exists()]
    if not signs:
        return
    raise StoreError(
        f"the database {path} {what}, but one existed: {', '.join(signs)} in its directory belong to it",
        hint="`ostler db restore FILE` restores a backup; `ostler db restore --empty` creates a new database",
        path=path,
    )


def set_aside_foreign_wal(path: Path, header: HeaderFile) -> Path | None:
    """Move a write-ahead log away that does not belong to the database at `path`; return its new path.

    Call it before SQLite opens the database, holding the owner's lock.

    Args:
        path: The database file.
        header: Reads its id.

    Raises:
        StoreUnavailable: It cannot be moved.
    """
    ids = IdentityFile(path).ids()
    if ids is None or not wal_size(path):
        return None
    try:
        if header.read_id() in ids:
            return None
        aside = wal_path(path).with_name(f"{path.name}-wal.foreign-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        wal_path(path).rename(aside)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the write-ahead log of {path} belongs to another database and cannot be moved: {error.strerror}",
            hint="check the owner and mode of its directory, and its free space",
            path=path,
        ) from error
    text = (
        "the write-ahead log (WAL) of %s belongs to another database: the database file has been replaced. "
        "The log was moved to %s and not used; restore files with `ostler db restore FILE` only"
    )
    _log.warning(text, path, aside)
    return aside


class FileWatch:
    """Checks whether the files at the path of an open database are still those that were opened. Any thread.

    Args:
        path: The database file; it exists.
        ids: The ids that its header may have; empty when they are not known.

    Raises:
        OSError: It cannot be accessed.
    """

    def __init__(self, path: Path, ids: frozenset[int]) -> None:
        self._path = str(path)
        self._wal = f"{path}-wal"
        self.ids = ids
        self.wal_size = 0
        # Closed after the connections: closing any descriptor of a file drops the locks that SQLite has on it.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self._inode = (found.st_dev, found.st_ino)
        self._wal_inode: int | None = None

    def on_connect(self) -> None:
        """Record the current write-ahead log, after a connection has written."""
        with suppress(OSError):
            self._wal_inode = os.stat(self._wal).st_ino  # noqa: PTH116 - for each commit: a Path costs more than the call

    def on_disconnect(self) -> None:
        """Record that a new write-ahead log may be used from now on."""
        self._wal_inode = None

    def check_state(self) -> DatabaseFileState:
        """Return the state of the files: two calls of `stat` and one read of four bytes."""
        try:
            found = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            return DatabaseFileState.REMOVED
        except OSError:
            return DatabaseFileState.HIDDEN
        if (found.st_dev, found.st_ino) != self._inode:
            return DatabaseFileState.REPLACED
        if self.ids and read_database_id(self._descriptor) not in self.ids:
            return DatabaseFileState.OVERWRITTEN
        return DatabaseFileState.OURS if self._wal_inode is None else self._check_wal()

    def _check_wal(self) -> DatabaseFileState:
        try:
            wal = os.stat(self._wal, follow_symlinks=False)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return DatabaseFileState.WAL_REMOVED
        except OSError:
            return DatabaseFileState.HIDDEN
        self.wal_size = wal.st_size
        return DatabaseFileState.OURS if wal.st_ino == self._wal_inode else DatabaseFileState.WAL_REMOVED

    def raise_if_changed(self) -> None:
        """Raise when the files have changed.

        Raises:
            StoreUnavailable: They have; `reason` is the name of the state.
        """
        state = self.check_state()
        if state is not DatabaseFileState.OURS:
            raise self.changed_error(state)

    def changed_error(self, state: DatabaseFileState) -> StoreUnavailable:
        """Return the error for changed files."""
        hint = "stop the daemon, and restore the right file with `ostler db restore FILE`"
        if state is DatabaseFileState.HIDDEN:
            hint = "check the owner and mode of the state directory; the daemon retries with the next write"
        return StoreUnavailable(
            f"the database {self._path} {state.value} while the daemon was running",
            hint=hint,
            path=self._path,
            reason=state.name,
        )

    def block_checkpoint(self) -> None:
        """Keep SQLite from checkpointing its log into a replaced file when connections are closed.

        It needs an exclusive lock for that, which this shared lock prevents.
        """
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_LOCK_OFFSET, _SHARED_LOCK_SIZE, 0)
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)

    def close(self) -> None:
        """Close; after all connections. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
