"""Translates errors of SQLite to errors for the operator."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import msgspec
import peewee

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable, is_a


class _ErrorMeaning(msgspec.Struct, frozen=True):
    kind: type[StoreError]
    what: str
    hint: str


_SPACE_HINT = "free space on its file system; the daemon then continues automatically"
_DISK_HINT = "check the kernel log, the health of the disk, and quotas of the daemon's user"
_PERMISSIONS_HINT = (
    "check the owner and mode of the file and its directory, and whether the file system is mounted read-only"
)
_LOCKED_HINT = "another program holds the database open for writing (a backup, an sqlite3 shell): let it finish"
RESTORE_HINT = (
    "stop the daemon and restore the newest good backup with `ostler db restore FILE`; "
    "those made before migrations are in the directory `backups` next to it"
)

_ROLLBACK_ERROR_TEXT = "cannot rollback"
_MEANING_BY_CODE: dict[int, _ErrorMeaning] = {
    sqlite3.SQLITE_BUSY: _ErrorMeaning(StoreUnavailable, "is locked by another program", _LOCKED_HINT),
    sqlite3.SQLITE_LOCKED: _ErrorMeaning(StoreUnavailable, "is locked", _LOCKED_HINT),
    sqlite3.SQLITE_PROTOCOL: _ErrorMeaning(StoreUnavailable, "is locked by another program", _LOCKED_HINT),
    sqlite3.SQLITE_FULL: _ErrorMeaning(StoreUnavailable, "cannot grow: no space left on the device", _SPACE_HINT),
    sqlite3.SQLITE_READONLY: _ErrorMeaning(StoreUnavailable, "is read-only", _PERMISSIONS_HINT),
    sqlite3.SQLITE_PERM: _ErrorMeaning(StoreUnavailable, "is not accessible to this user", _PERMISSIONS_HINT),
    sqlite3.SQLITE_CANTOPEN: _ErrorMeaning(StoreUnavailable, "cannot be opened", _PERMISSIONS_HINT),
    sqlite3.SQLITE_IOERR: _ErrorMeaning(
        StoreUnavailable, "cannot be read or written: the disk reports an error", _DISK_HINT
    ),
    sqlite3.SQLITE_NOMEM: _ErrorMeaning(StoreUnavailable, "cannot be used: out of memory", "free memory"),
    sqlite3.SQLITE_CORRUPT: _ErrorMeaning(StoreCorrupt, "is damaged", RESTORE_HINT),
    sqlite3.SQLITE_NOTADB: _ErrorMeaning(StoreCorrupt, "is not a database, or is damaged", RESTORE_HINT),
}


def sqlite_error(error: BaseException) -> sqlite3.Error | None:
    """Return the SQLite error that `error` is, or that peewee wrapped in it; None for any other error."""
    cause = getattr(error, "orig", None) if is_a(error, peewee.PeeweeException) else error
    return cause if is_a(cause, sqlite3.Error) else None


def translate_error(error: BaseException, path: Path) -> BaseException:
    """Return the store's error for an error.

    A problem with the file becomes `StoreUnavailable` or `StoreCorrupt` with a hint. Errors of a query (a violated
    constraint, bad SQL) are returned unchanged: its author knows best what they mean.
    """
    cause = _error_before_rollback(error)
    code = getattr(cause, "sqlite_errorcode", None)
    plain = _root_cause_code(code & 0xFF, path) if code is not None else -1
    meaning = _MEANING_BY_CODE.get(plain)
    if meaning is None:
        return error
    translated = meaning.kind(
        f"the database {path} {meaning.what}",
        hint=meaning.hint,
        path=path,
        reason=getattr(cause, "sqlite_errorname", "")
        if plain == code or plain != sqlite3.SQLITE_FULL
        else _DISK_FULL_CODE,
    )
    translated.__cause__ = error
    return translated


def _error_before_rollback(error: BaseException) -> sqlite3.Error | None:
    """Return the SQLite error behind an error, not that of the rollback that followed it.

    On a full disk SQLite has already rolled back, and the error of the second rollback hides the cause.
    """
    before: BaseException | None = error
    while before is not None:
        cause = sqlite_error(before)
        if cause is None or _ROLLBACK_ERROR_TEXT not in str(cause):
            return cause if cause is not None else sqlite_error(error)
        before = cause.__context__
    return sqlite_error(error)


def _root_cause_code(code: int, path: Path) -> int:
    """Return the cause of a disk error as the file system reports it: SQLite does not for all its files."""
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


_DISK_FULL_CODE = "SQLITE_FULL"
_DISK_FULL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
_TRANSIENT_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_TRANSIENT_CODES = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY")


def is_transient(error: BaseException) -> bool:
    """Return whether an error goes away when the disk has space or is writable again, or others end their lock."""
    if not isinstance(error, StoreUnavailable):
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _TRANSIENT_ERRNO
    return error.reason.startswith(_TRANSIENT_CODES)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error of the store says that its disk is full."""
    if not isinstance(error, StoreUnavailable):
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _DISK_FULL_ERRNO
    return error.reason.startswith(_DISK_FULL_CODE)


def is_database_error(error: BaseException) -> bool:
    """Return whether the error is about the database file itself, and not about one query."""
    return isinstance(error, StoreUnavailable | StoreCorrupt)
