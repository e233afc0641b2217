"""Reads the database of a stopped daemon without changing it: from a private, untrusted copy.

Opening a database in place would checkpoint its write-ahead log, or leave files next to it; and it may be crafted by
another user. So the files are copied by descriptors into a directory that others cannot enter, and the copy is read
within limits of time and size.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable
from ostler.files import UnreadableFile, open_directory, open_regular
from ostler.files.ownership import user_name
from ostler.store.session import Database
from ostler.store.sqlite_files.sqlite_connection import APPLICATION_ID, translate_errors
from ostler.time_text import format_seconds

MAX_COPY_SIZE = 2 * 1024**3
"""The most bytes of a database, with its write-ahead log, that are copied."""
READ_TIMEOUT = 10.0
"""Seconds that reading the copy may take in all."""
_MAX_ROW_SIZE = 1024 * 1024
_PROGRESS_STEPS = 10_000
_CHUNK_SIZE = 4 * 1024 * 1024
_MAX_ATTEMPTS = 3
_WAL_SUFFIX = "-wal"


@contextmanager
def open_offline_copy(path: Path, tables: tuple[str, ...], *, timeout: float = READ_TIMEOUT) -> Iterator[Database]:
    """Open a copy of a database for reading; nothing of the database itself is changed. Blocks; any thread.

    Args:
        path: The database file.
        tables: The tables that are read: each must be a table, and nothing that calculates its rows.
        timeout: Seconds after which reading is cancelled.

    Raises:
        StoreUnavailable: It cannot be read, is too large, or changes while it is copied; or reading took too long.
        StoreCorrupt: It is damaged, or one of the tables is something else.
        StoreError: It is the database of another program.
    """
    with tempfile.TemporaryDirectory(prefix="ostler-") as folder:  # mode 0700
        copy = Path(folder) / "copy.db"
        _copy_files(path, copy)
        database = _connect(copy, timeout)
        try:
            with _enforce_timeout(path, timeout), translate_errors(path):
                _check_copy(database, path, tables)
                yield database
        finally:
            database.close()


def _copy_files(path: Path, copy: Path) -> None:
    try:
        directory = open_directory(path.parent, follow=True)
        try:
            for _ in range(_MAX_ATTEMPTS):
                before = _file_stamps(directory, path.name)
                _copy_file(directory, path.name, copy, os.fstat(directory), MAX_COPY_SIZE)
                with suppress(FileNotFoundError):
                    wal = copy.with_name(copy.name + _WAL_SUFFIX)
                    _copy_file(
                        directory,
                        path.name + _WAL_SUFFIX,
                        wal,
                        os.fstat(directory),
                        MAX_COPY_SIZE - copy.stat().st_size,
                    )
                if _file_stamps(directory, path.name) == before:
                    return
        finally:
            os.close(directory)
    except UnreadableFile as error:
        raise StoreUnavailable(
            f"the database {path.with_name(str(error.filename))} {error.strerror}",
            hint="check --root: it was not created by a daemon",
            path=path,
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"the database {path} cannot be read: {error.strerror}",
            hint="run this as root or as the daemon's user",
            path=path,
        ) from None
    raise StoreUnavailable(
        f"the database {path} changed while it was read", hint="a daemon is using it: ask that daemon", path=path
    )


def _file_stamps(directory: int, name: str) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for each in (name, name + _WAL_SUFFIX):
        try:
            status = os.stat(each, dir_fd=directory, follow_symlinks=False)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found


def _copy_file(directory: int, name: str, copy: Path, owner: os.stat_result, max_size: int) -> None:
    source, status = open_regular(name, dir_fd=directory, follow=False)
    try:
        # A file of another owner than its directory may be a hard link to a file that the owner cannot read.
        if owner.st_uid not in (0, status.st_uid):
            whose = f"belongs to {user_name(status.st_uid)}, its directory to {user_name(owner.st_uid)}"
            raise UnreadableFile(whose, name, status)
        if status.st_size > max_size:
            raise UnreadableFile(f"is larger than {MAX_COPY_SIZE // 1024**3}GiB", name, status)
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _copy_bytes(source, target, max_size)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int, max_size: int) -> None:
    at = 0
    while at < max_size and (piece := os.read(source, min(_CHUNK_SIZE, max_size - at))):
        if piece.count(0) < len(piece):  # zeros become holes
            done = 0
            while done < len(piece):
                done += os.pwrite(target, piece[done:], at + done)
        at += len(piece)
    os.ftruncate(target, at)


def _connect(copy: Path, timeout: float) -> Database:
    database = Database(
        f"{copy.as_uri()}?mode=rw", uri=True, thread_safe=False, autoconnect=False, timeout=1.0, check_same_thread=False
    )
    with translate_errors(copy):
        database.connect()
        connection: sqlite3.Connection = database.connection()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_SIZE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        end = time.monotonic() + timeout
        connection.set_progress_handler(lambda: int(time.monotonic() > end), _PROGRESS_STEPS)
    return database


@contextmanager
def _enforce_timeout(path: Path, timeout: float) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", error)  # peewee's errors have SQLite's
        name = getattr(cause, "sqlite_errorname", "")
        if name == "SQLITE_INTERRUPT":
            raise StoreUnavailable(
                f"reading the database {path} took longer than {format_seconds(timeout)}, and was cancelled",
                hint="request less, or start the daemon", path=path,
            ) from None  # fmt: skip
        if name == "SQLITE_TOOBIG":
            raise StoreCorrupt(f"the database {path} contains invalid rows", path=path) from None
        raise


def _check_copy(database: Database, path: Path, tables: tuple[str, ...]) -> None:
    database.execute_sql("PRAGMA trusted_schema = OFF")
    database.execute_sql("PRAGMA query_only = ON")
    if database.execute_sql("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program", hint="check that --root is right", path=path)
    for table in tables:
        query = "SELECT type, sql FROM sqlite_master WHERE name = ?"
        kinds = database.execute_sql(query, (table,)).fetchall()
        if not kinds:
            raise StoreCorrupt(
                f"the database {path} has no table {table}",
                hint="start the daemon once, it creates the table",
                path=path,
            )
        plain = str(kinds[0][1]).lstrip()[:12].upper() == "CREATE TABLE"
        if len(kinds) != 1 or kinds[0][0] != "table" or not plain or "GENERATED ALWAYS" in str(kinds[0][1]).upper():
            raise StoreCorrupt(
                f"{table} in the database {path} is not a plain table: it was not created by the daemon",
                hint="check who can write to the state directory", path=path,
            )  # fmt: skip
