"""Which database file is ours: recognised while it is open, and before SQLite opens it.

SQLite finds a write-ahead log by its name alone and brings it into whatever file has the name of the database. So each
run of a daemon stamps the database with an id (`user_version`, in the file's header), each backup gets one of its own,
and the file `ostler.identity` says to which database a write-ahead log belongs. Inodes tell the rest while it is open.
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
from ostler.store.current import Database

_log = logging.getLogger(__name__)
_ID_OFFSET = 60
"""Where SQLite keeps `user_version`, a big-endian number of 32 bits."""
_WAL_HEADER = 32
"""Bytes of a write-ahead log that holds nothing."""
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of the database file that SQLite locks to read."""


class FileState(Enum):
    """What became of the files of an open database."""

    OURS = ""
    REMOVED = "was removed"
    REPLACED = "was replaced by another file"
    OVERWRITTEN = "was overwritten with another database"
    WAL_REMOVED = "has lost its write-ahead log, which was removed"
    HIDDEN = "cannot be looked at any more"
    """Its directory is closed to the daemon, or its file system fails: nothing is known, and nothing may be done."""


class Identity:
    """The ids to which the write-ahead log beside a database belongs, kept in a file.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._database = path
        self.path = path.with_suffix(".identity")

    def ids(self) -> frozenset[int] | None:
        """Return the ids; empty when the log belongs to a file that is not there any more; None if nothing is known."""
        try:
            words = self.path.read_text("ascii").split()
            return frozenset(int(word, 16) for word in words)
        except (OSError, ValueError):
            return None

    def write(self, *ids: int) -> None:
        """Keep the ids, safe on the disk.

        Raises:
            OSError: They cannot be written.
        """
        replace_file(self.path, "".join(f"{each:08x}\n" for each in ids).encode("ascii"), mode=0o600)


def new_id() -> int:
    """Return an id that no other database has."""
    return random.SystemRandom().randrange(1, 2**31)


def id_of(descriptor: int) -> int:
    """Return the id in the header of an open file; 0 if it has none."""
    data = os.pread(descriptor, 4, _ID_OFFSET)
    return struct.unpack(">I", data)[0] if len(data) == 4 else 0


def stamp(database: Database, path: Path) -> frozenset[int]:
    """Give the database a new id for this run; return the ids that its header may have from now on.

    On a disk that cannot be written now, or not at some point of this, it may be the old one, which is right as well.
    """
    identity, before, fresh = Identity(path), int(database.pragma("user_version")), new_id()
    with suppress(OSError, peewee.OperationalError):
        identity.write(before, fresh)
        database.execute_sql(f"PRAGMA user_version = {fresh}")
        if database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return frozenset((before, fresh))  # somebody reads, and the header comes to the file later
        identity.write(fresh)
        return frozenset((fresh,))
    return frozenset((before, fresh, int(database.pragma("user_version"))))


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def wal_size(path: Path) -> int:
    """Return how much the write-ahead log of a database holds, in bytes; 0 when there is none."""
    try:
        found = wal_of(path).lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size > _WAL_HEADER else 0


def refuse_lost(path: Path) -> None:
    """Refuse to begin with an empty database where there was one.

    Raises:
        StoreError: The database is missing or empty, and other files say that there was one.
    """
    try:
        if path.lstat().st_size:
            return
        what = "is empty"
    except FileNotFoundError:
        what = "is missing"
    except OSError:
        return  # who opens it says more
    signs = [wal_of(path).name] if wal_size(path) else []
    signs += [each.name for each in (Identity(path).path, path.parent / "backups") if each.exists()]
    if not signs:
        return
    raise StoreError(
        f"the database {path} {what}, but there was one: {', '.join(signs)} in its directory belong to it",
        hint="`ostler db restore FILE` puts a backup in its place; `ostler db restore --empty` begins with a new one",
        path=path,
    )


def set_aside_foreign_wal(path: Path) -> Path | None:
    """Move a write-ahead log away that belongs to another database than the file at `path`; return where it is.

    Call it before SQLite opens the database, with its owner's lock.

    Raises:
        StoreUnavailable: It cannot be moved.
    """
    ids = Identity(path).ids()
    if ids is None or not wal_size(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = id_of(descriptor)
        finally:
            os.close(descriptor)
        if found in ids:
            return None
        aside = wal_of(path).with_name(f"{path.name}-wal.foreign-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        wal_of(path).rename(aside)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the write-ahead log beside {path} belongs to another database and cannot be moved: {error.strerror}",
            hint="check the owner and mode of its directory, and its free space",
            path=path,
        ) from error
    text = (
        "the write-ahead log (WAL) beside %s belongs to another database: somebody has put this file there. "
        "The log was moved to %s and not used; put files back with `ostler db restore FILE` only"
    )
    _log.warning(text, path, aside)
    return aside


class FileWatch:
    """Tells whether the files at the path of an open database are still those that were opened. Any thread.

    Args:
        path: The database file; it exists.
        ids: The ids that its header may have; empty when they are not known.

    Raises:
        OSError: It cannot be looked at.
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

    def connected(self) -> None:
        """Take note of the write-ahead log that a connection which has just written uses."""
        with suppress(OSError):
            self._wal_inode = os.stat(self._wal).st_ino  # noqa: PTH116 - for each commit: a Path costs more than the call

    def disconnected(self) -> None:
        """Take note that another write-ahead log may be used from now on."""
        self._wal_inode = None

    def look(self) -> FileState:
        """Return what became of the files: two calls of `stat` and one read of four bytes."""
        try:
            found = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            return FileState.REMOVED
        except OSError:
            return FileState.HIDDEN
        if (found.st_dev, found.st_ino) != self._inode:
            return FileState.REPLACED
        if self.ids and id_of(self._descriptor) not in self.ids:
            return FileState.OVERWRITTEN
        return FileState.OURS if self._wal_inode is None else self._look_at_log()

    def _look_at_log(self) -> FileState:
        try:
            wal = os.stat(self._wal, follow_symlinks=False)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return FileState.WAL_REMOVED
        except OSError:
            return FileState.HIDDEN
        self.wal_size = wal.st_size
        return FileState.OURS if wal.st_ino == self._wal_inode else FileState.WAL_REMOVED

    def check(self) -> None:
        """Raise when the files are others.

        Raises:
            StoreUnavailable: They are; `reason` is the name of the state.
        """
        state = self.look()
        if state is not FileState.OURS:
            raise self.error(state)

    def error(self, state: FileState) -> StoreUnavailable:
        """Return the error for files that are others."""
        hint = "stop the daemon, and put the right file back with `ostler db restore FILE`"
        if state is FileState.HIDDEN:
            hint = "look at the state directory, its owner and mode; the daemon tries again with the next write"
        return StoreUnavailable(
            f"the database {self._path} {state.value} while the daemon runs",
            hint=hint,
            path=self._path,
            reason=state.name,
        )

    def keep_file_as_it_is(self) -> None:
        """Keep SQLite from bringing its log into a file that is another one by now, when connections are closed.

        It does that under an exclusive lock, which it does not get beside this one.
        """
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)

    def close(self) -> None:
        """Close; after all connections. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
