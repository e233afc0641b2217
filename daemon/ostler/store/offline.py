"""A database whose daemon is down, read without a trace: a private copy of it, believed in nothing.

Opening a database in its place would bring its write-ahead log into it, or leave files beside it; and it may be one
that somebody made up. So the files are copied by descriptors into a directory that nobody else can enter, and the copy
is read within bounds of time and size.
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
from ostler.files import FileRefused, open_directory, open_regular
from ostler.files.ownership import user_name
from ostler.store.current import Database
from ostler.store.database import APPLICATION_ID, translated

MAX_SIZE = 2 * 1024**3
"""Bytes of a database, with its write-ahead log, that is copied."""
TIME_LIMIT = 10.0
"""Seconds that reading the copy may take in all."""
_ROW_MAX = 1024 * 1024
_STEPS = 10_000
_PIECE = 4 * 1024 * 1024
_TRIES = 3
_WAL = "-wal"


@contextmanager
def opened(path: Path, tables: tuple[str, ...], *, time_limit: float = TIME_LIMIT) -> Iterator[Database]:
    """Open a copy of a database for reading; nothing of the database itself is changed. Blocks; any thread.

    Args:
        path: The database file.
        tables: The tables that are read: each must be a table, and nothing that calculates its rows.
        time_limit: Seconds until reading is broken off.

    Raises:
        StoreUnavailable: It cannot be read, is too large, or changes while it is copied; or reading took too long.
        StoreCorrupt: It is damaged, or one of the tables is something else.
        StoreError: It is the database of another program.
    """
    with tempfile.TemporaryDirectory(prefix="ostler-") as folder:  # mode 0700
        copy = Path(folder) / "copy.db"
        _copy(path, copy)
        database = _connect(copy, time_limit)
        try:
            with _timed(path, time_limit), translated(path):
                _inspect(database, path, tables)
                yield database
        finally:
            database.close()


def _copy(path: Path, copy: Path) -> None:
    try:
        directory = open_directory(path.parent, follow=True)
        try:
            for _ in range(_TRIES):
                before = _facts(directory, path.name)
                _copy_file(directory, path.name, copy, os.fstat(directory), MAX_SIZE)
                with suppress(FileNotFoundError):
                    wal = copy.with_name(copy.name + _WAL)
                    _copy_file(directory, path.name + _WAL, wal, os.fstat(directory), MAX_SIZE - copy.stat().st_size)
                if _facts(directory, path.name) == before:
                    return
        finally:
            os.close(directory)
    except FileRefused as error:
        raise StoreUnavailable(
            f"the database {path.with_name(str(error.filename))} {error.strerror}",
            hint="it was not made by a daemon",
            path=path,
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"the database {path} cannot be read: {error.strerror}", hint="as root, or as the daemon's user", path=path
        ) from None
    raise StoreUnavailable(
        f"the database {path} changes while it is read", hint="a daemon is at work on it: ask that one", path=path
    )


def _facts(directory: int, name: str) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for each in (name, name + _WAL):
        try:
            status = os.stat(each, dir_fd=directory, follow_symlinks=False)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found


def _copy_file(directory: int, name: str, copy: Path, owner: os.stat_result, most: int) -> None:
    source, status = open_regular(name, dir_fd=directory, follow=False)
    try:
        # What lies in somebody's directory and is another's may be a second name of a file that is not theirs.
        if owner.st_uid not in (0, status.st_uid):
            whose = f"belongs to {user_name(status.st_uid)}, its directory to {user_name(owner.st_uid)}"
            raise FileRefused(whose, name, status)
        if status.st_size > most:
            raise FileRefused(f"is larger than {MAX_SIZE // 1024**3}GiB", name, status)
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _fill(source, target, most)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _fill(source: int, target: int, most: int) -> None:
    at = 0
    while at < most and (piece := os.read(source, min(_PIECE, most - at))):
        if piece.count(0) < len(piece):  # zeros take up no room
            done = 0
            while done < len(piece):
                done += os.pwrite(target, piece[done:], at + done)
        at += len(piece)
    os.ftruncate(target, at)


def _connect(copy: Path, time_limit: float) -> Database:
    database = Database(
        f"{copy.as_uri()}?mode=rw", uri=True, thread_safe=False, autoconnect=False, timeout=1.0, check_same_thread=False
    )
    with translated(copy):
        database.connect()
        connection: sqlite3.Connection = database.connection()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ROW_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        end = time.monotonic() + time_limit
        connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    return database


@contextmanager
def _timed(path: Path, time_limit: float) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", error)  # peewee's errors have SQLite's
        name = getattr(cause, "sqlite_errorname", "")
        if name == "SQLITE_INTERRUPT":
            raise StoreUnavailable(
                f"reading the database {path} took longer than {time_limit:g} s, and was broken off",
                hint="ask for less, or start the daemon", path=path,
            ) from None  # fmt: skip
        if name == "SQLITE_TOOBIG":
            raise StoreCorrupt(f"the database {path} has rows that no daemon writes", path=path) from None
        raise


def _inspect(database: Database, path: Path, tables: tuple[str, ...]) -> None:
    database.execute_sql("PRAGMA trusted_schema = OFF")
    database.execute_sql("PRAGMA query_only = ON")
    if database.execute_sql("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program", hint="is it the right --root?", path=path)
    for table in tables:
        query = "SELECT type, sql FROM sqlite_master WHERE name = ?"
        kinds = database.execute_sql(query, (table,)).fetchall()
        if not kinds:
            raise StoreCorrupt(
                f"the database {path} has no table {table}", hint="start the daemon once, which makes it", path=path
            )
        plain = str(kinds[0][1]).lstrip()[:12].upper() == "CREATE TABLE"
        if len(kinds) != 1 or kinds[0][0] != "table" or not plain or "GENERATED ALWAYS" in str(kinds[0][1]).upper():
            raise StoreCorrupt(
                f"in the database {path} {table} is not a plain table: somebody else has made it",
                hint="who can write the state directory?", path=path,
            )  # fmt: skip
