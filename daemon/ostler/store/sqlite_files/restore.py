"""Restores a backup, without leaving files of the old database next to it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from ostler.errors import NotFound, StoreError, StoreUnavailable
from ostler.files import UnreadableFile, make_directory, open_regular
from ostler.store.sqlite_files.backup import OnCopied
from ostler.store.sqlite_files.file_identity import IdentityFile, new_database_id, wal_path
from ostler.store.sqlite_files.sqlite_connection import (
    APPLICATION_ID,
    OwnerLock,
    corrupt_error,
    make_state_directory,
    read_findings,
    translate_errors,
)

_CHUNK_SIZE = 1024 * 1024


def restore_database(path: Path, source: Path | None, on_copied: OnCopied | None = None) -> Path | None:
    """Replace the database of a stopped daemon by a copy of a backup. Blocks; any thread.

    The existing database is moved to the directory `backups` first. All files get the owner of the state directory.

    Args:
        path: The database.
        source: The backup; None for a new, empty database.
        on_copied: Called while the backup is copied, with the bytes that were and those that there are.

    Returns:
        The new path of the old database; None if there was none.

    Raises:
        StoreInUse: A daemon is using this state.
        NotFound: There is no such backup.
        StoreCorrupt: The backup is damaged; nothing was changed.
        StoreError: The backup is a database of another program; nothing was changed.
        StoreUnavailable: A file cannot be read or written.
    """
    make_state_directory(path.parent)
    lock = OwnerLock(path.with_suffix(".lock"))
    lock.acquire()
    part = path.with_name(f".ostler-{os.urandom(8).hex()}.part")
    try:
        if source is not None:
            _copy_files(source, part, on_copied)
        identity = _prepare(part, source or part)
        moved = _archive_current(path)
        IdentityFile(path).write(identity)
        part.rename(path)
        _chown_to_owner(path, lock.path, IdentityFile(path).path)
        _sync(path.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"{error.filename or path} cannot be used to restore the database: {error.strerror}",
            hint="run this as root or as the daemon's user, and check the free space",
            path=path,
        ) from error
    else:
        return moved
    finally:
        for suffix in ("", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
        lock.release()


def _copy_files(source: Path, part: Path, on_copied: OnCopied | None) -> None:
    try:
        _copy_file(source, part, on_copied)
    except FileNotFoundError:
        raise NotFound(f"backup {source} not found", hint="give the path of a backup file", path=source) from None
    except UnreadableFile as error:
        raise StoreError(f"{source} {error.strerror}", hint="give the path of a backup file", path=source) from None
    with suppress(FileNotFoundError, UnreadableFile):
        _copy_file(wal_path(source), wal_path(part))


def _copy_file(source: Path, target: Path, on_copied: OnCopied | None = None) -> None:
    reader, _ = open_regular(source)
    with os.fdopen(reader, "rb") as file:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(writer, "wb") as copy:
            while piece := file.read(_CHUNK_SIZE):
                copy.write(piece)
                if on_copied is not None:
                    on_copied(copy.tell(), os.fstat(reader).st_size)
            copy.flush()
            os.fsync(copy.fileno())


def _prepare(part: Path, source: Path) -> int:
    """Check the copy, and make it one file with an id of its own; return the id."""
    identity = new_database_id()
    with translate_errors(source), closing(sqlite3.connect(part, isolation_level=None)) as connection:
        if source is part:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        found = read_findings(connection.execute("PRAGMA integrity_check(5)").fetchall())
        if found:
            raise corrupt_error(source, found)
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(
                f"{source} is not a backup of Ostler's database", hint="give the path of a backup file", path=source
            )
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {identity}")
    part.chmod(0o600)
    return identity


def _archive_current(path: Path) -> Path | None:
    """Move the database and its log to the backups; return where it is."""
    files = [each for each in (path, wal_path(path)) if os.path.lexists(each)]
    target = None
    if files:
        folder = path.parent / "backups"
        make_directory(folder, 0o700)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = folder / f"{path.stem}-{moment}-{os.urandom(2).hex()}-before-restore.db"
        for each in files:
            each.rename(target if each == path else wal_path(target))
        _chown_to_owner(folder)
        _sync(folder)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return target


def _chown_to_owner(*paths: Path) -> None:
    if os.geteuid():
        return
    for path in paths:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
