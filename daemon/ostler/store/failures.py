"""What SQLite's errors mean to whoever runs the daemon."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import msgspec
import peewee

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable, is_a


class _Meaning(msgspec.Struct, frozen=True):
    kind: type[StoreError]
    what: str
    hint: str


_SPACE = "free space on its file system; the daemon goes on by itself then"
_DISK = "look at the kernel's log and the health of the disk"
_RIGHTS = "check the owner and mode of the file and its folder, and whether the file system is mounted read-only"
_LOCKED = "another program holds the database open for writing (a backup, an sqlite3 shell): let it finish"
RESTORE_HINT = (
    "stop the daemon and put the newest good backup in its place with `ostler db restore FILE`; "
    "those made before changes of the tables are in the directory `backups` beside it"
)

_ROLLED_BACK = "cannot rollback"
_MEANINGS: dict[int, _Meaning] = {
    sqlite3.SQLITE_BUSY: _Meaning(StoreUnavailable, "is locked by another program", _LOCKED),
    sqlite3.SQLITE_LOCKED: _Meaning(StoreUnavailable, "is locked", _LOCKED),
    sqlite3.SQLITE_PROTOCOL: _Meaning(StoreUnavailable, "is locked by another program", _LOCKED),
    sqlite3.SQLITE_FULL: _Meaning(StoreUnavailable, "cannot grow: no space is left", _SPACE),
    sqlite3.SQLITE_READONLY: _Meaning(StoreUnavailable, "is read-only", _RIGHTS),
    sqlite3.SQLITE_PERM: _Meaning(StoreUnavailable, "may not be used by this user", _RIGHTS),
    sqlite3.SQLITE_CANTOPEN: _Meaning(StoreUnavailable, "cannot be opened", _RIGHTS),
    sqlite3.SQLITE_IOERR: _Meaning(StoreUnavailable, "cannot be read or written: the disk reports an error", _DISK),
    sqlite3.SQLITE_NOMEM: _Meaning(StoreUnavailable, "cannot be used: there is no memory left", "free memory"),
    sqlite3.SQLITE_CORRUPT: _Meaning(StoreCorrupt, "is damaged", RESTORE_HINT),
    sqlite3.SQLITE_NOTADB: _Meaning(StoreCorrupt, "is not a database, or is damaged", RESTORE_HINT),
}


def sqlite_error(error: BaseException) -> sqlite3.Error | None:
    """Return the SQLite error that `error` is, or that peewee wrapped in it; None for any other error."""
    cause = getattr(error, "orig", None) if is_a(error, peewee.PeeweeException) else error
    return cause if is_a(cause, sqlite3.Error) else None


def translate(error: BaseException, path: Path) -> BaseException:
    """Return the error as the store raises it.

    Trouble with the file becomes `StoreUnavailable` or `StoreCorrupt` with a hint. What a query did wrong (a broken
    constraint, bad SQL) is left as it is: its author knows best what it means.
    """
    cause = _before_rollback(error)
    code = getattr(cause, "sqlite_errorcode", None)
    plain = _plainer(code & 0xFF, path) if code is not None else -1
    meaning = _MEANINGS.get(plain)
    if meaning is None:
        return error
    translated = meaning.kind(
        f"the database {path} {meaning.what}",
        hint=meaning.hint,
        path=path,
        reason=getattr(cause, "sqlite_errorname", "") if plain == code or plain != sqlite3.SQLITE_FULL else _FULL,
    )
    translated.__cause__ = error
    return translated


def _before_rollback(error: BaseException) -> sqlite3.Error | None:
    """Return the SQLite error behind an error, and not that of a rollback which followed it.

    Where the disk is full SQLite has rolled back by itself, and the attempt to do so once more hides why.
    """
    before: BaseException | None = error
    while before is not None:
        cause = sqlite_error(before)
        if cause is None or _ROLLED_BACK not in str(cause):
            return cause if cause is not None else sqlite_error(error)
        before = cause.__context__
    return sqlite_error(error)


def _plainer(code: int, path: Path) -> int:
    """Return what an error of the disk comes from, if the file system says so: SQLite does not for all its files."""
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return code
    if found.f_flag & os.ST_RDONLY:
        return sqlite3.SQLITE_READONLY
    full = not found.f_bavail or (found.f_files and not found.f_favail)
    return sqlite3.SQLITE_FULL if full else code


_FULL = "SQLITE_FULL"
_FULL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_PASSING = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


def may_pass(error: BaseException) -> bool:
    """Return whether an error ends when there is room on the disk, or it can be written again."""
    if not isinstance(error, StoreUnavailable):
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _PASSING_ERRNO
    return str(error.facts.get("reason", "")).startswith(_PASSING)


def is_full(error: BaseException) -> bool:
    """Return whether an error of the store says that its disk is full."""
    if not isinstance(error, StoreUnavailable):
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _FULL_ERRNO
    return str(error.facts.get("reason", "")).startswith(_FULL)


def is_trouble(error: BaseException) -> bool:
    """Return whether the error is about the database file itself, and not about one query."""
    return isinstance(error, StoreUnavailable | StoreCorrupt)
