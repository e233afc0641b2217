"""Writes the database again without the room of removed rows."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ostler.errors import StoreUnavailable
from ostler.store.session import Database
from ostler.store.sqlite_files.sqlite_connection import translate_errors

_ROOM_FACTOR = 1.1
"""Indexes are built again, and may be larger than they were."""


class VacuumResult(msgspec.Struct, frozen=True):
    """The size of the database file before and after, in bytes."""

    before: int
    after: int


def used_size(database: Database) -> int:
    """Return how many bytes of the database are in use: what is copied."""
    return int(database.pragma("page_size")) * (int(database.pragma("page_count")) - _free_pages(database))


def vacuum(database: Database, path: Path, temporary: Path | None = None) -> VacuumResult:
    """Give the room of removed rows back to the file system. Blocks, and all writes wait meanwhile.

    SQLite copies what is in use to a temporary file, and from there through the write-ahead log.

    Args:
        database: A connection for writing, in no transaction.
        path: The database file.
        temporary: The directory of the temporary file; by default where SQLite makes it.

    Raises:
        StoreUnavailable: There is not enough room for the two copies; nothing was changed.
    """
    with translate_errors(path):
        before = path.stat().st_size
        if _free_pages(database):
            _check_room(used_size(database), path, temporary or _temporary_directory())
            database.execute_sql("VACUUM")
        # Only a checkpoint shortens the file. One that a reader prevents is done by one of the next writes.
        database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return VacuumResult(before, path.stat().st_size)


def _free_pages(database: Database) -> int:
    return int(database.pragma("freelist_count"))


def _check_room(size: int, path: Path, temporary: Path) -> None:
    wanted = int(size * _ROOM_FACTOR)
    needed = {path.parent: wanted}
    if os.stat(temporary).st_dev == os.stat(path.parent).st_dev:  # noqa: PTH116 - one line for both
        needed[path.parent] += wanted
    else:
        needed[temporary] = wanted
    for directory, room in needed.items():
        found = os.statvfs(directory)
        free = found.f_bavail * found.f_frsize
        if free < room:
            raise StoreUnavailable(
                f"there is not enough room to vacuum the database {path}: {directory} has {free // 2**20} MiB free, "
                f"and {-(-room // 2**20)} MiB are needed for a while",
                hint="free space there, or set SQLITE_TMPDIR to a directory on another disk",
                path=path,
            )


def _temporary_directory() -> Path:
    """Return where SQLite makes its temporary files."""
    usual = ("/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108 - SQLite's own list
    for name in (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *usual):
        if name and Path(name).is_dir() and os.access(name, os.W_OK | os.X_OK):
            return Path(name)
    return Path.cwd()  # which it tries last
