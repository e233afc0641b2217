"""Putting a backup in the place of the database: the one way that leaves no file of the old one beside it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from ostler.errors import NotFound, StoreError, StoreUnavailable
from ostler.files import FileRefused, make_directory, open_regular
from ostler.store.database import APPLICATION_ID, OwnerLock, corrupt, make_folder, translated
from ostler.store.identity import Identity, new_id, wal_of

_PIECE = 1024 * 1024


def restore(path: Path, source: Path | None) -> Path | None:
    """Put a copy of a backup in the place of the database of a stopped daemon. Blocks; any thread.

    What is there is moved to the directory `backups` first. All files get the owner of the state directory.

    Args:
        path: The database.
        source: The backup; None for a new, empty database.

    Returns:
        Where the database is now that was there; None if there was none.

    Raises:
        StoreInUse: A daemon runs on this state.
        NotFound: There is no such backup.
        StoreCorrupt: The backup is damaged; nothing was changed.
        StoreError: The backup is a database of another program; nothing was changed.
        StoreUnavailable: A file cannot be read or written.
    """
    make_folder(path.parent)
    lock = OwnerLock(path.with_suffix(".lock"))
    lock.take()
    part = path.with_name(f".ostler-{os.urandom(8).hex()}.part")
    try:
        if source is not None:
            _copy_files(source, part)
        identity = _prepare(part, source or part)
        moved = _move_away(path)
        Identity(path).write(identity)
        part.rename(path)
        _give_to_owner(path, lock.path, Identity(path).path)
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


def _copy_files(source: Path, part: Path) -> None:
    try:
        _copy_file(source, part)
    except FileNotFoundError:
        raise NotFound(f"there is no backup {source}", hint="name the file of a backup", path=source) from None
    except FileRefused as error:
        raise StoreError(f"{source} {error.strerror}", hint="name the file of a backup", path=source) from None
    with suppress(FileNotFoundError, FileRefused):
        _copy_file(wal_of(source), wal_of(part))


def _copy_file(source: Path, target: Path) -> None:
    reader, _ = open_regular(source)
    with os.fdopen(reader, "rb") as file:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(writer, "wb") as copy:
            while piece := file.read(_PIECE):
                copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())


def _prepare(part: Path, source: Path) -> int:
    """Check the copy, and make it one file with an id of its own; return the id."""
    identity = new_id()
    with translated(source), closing(sqlite3.connect(part, isolation_level=None)) as connection:
        if source is part:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)").fetchall()]
        if found != ["ok"]:
            raise corrupt(source, found)
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(
                f"{source} is not a backup of Ostler's database", hint="name the file of a backup", path=source
            )
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {identity}")
    part.chmod(0o600)
    return identity


def _move_away(path: Path) -> Path | None:
    """Move the database and its log to the backups; return where it is."""
    files = [each for each in (path, wal_of(path)) if os.path.lexists(each)]
    target = None
    if files:
        folder = path.parent / "backups"
        make_directory(folder, 0o700)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = folder / f"{path.stem}-{moment}-{os.urandom(2).hex()}-before-restore.db"
        for each in files:
            each.rename(target if each == path else wal_of(target))
        _give_to_owner(folder)
        _sync(folder)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return target


def _give_to_owner(*paths: Path) -> None:
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
