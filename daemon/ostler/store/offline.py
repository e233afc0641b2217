"""Maintenance of the database of a stopped daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec

from ostler.clock import SystemClock
from ostler.errors import ContractError, NotFound, StoreError, error_line
from ostler.store import migrations as core
from ostler.store.migrate import CORE_NAMESPACE, Migrator
from ostler.store.session import Database
from ostler.store.sqlite_files import backup, file_identity, sqlite_connection
from ostler.store.sqlite_files.vacuum import VacuumResult, vacuum


class MigrationReport(msgspec.Struct, frozen=True):
    """What was migrated, or would be: a line for each step, the backup, and why a namespace could not be.

    Attributes:
        steps: The steps, each `NAMESPACE NUMBER NAME`.
        backup: The copy from before; empty when none was made.
        problems: A line for each namespace that was not migrated.
    """

    steps: list[str]
    backup: str
    problems: list[str]


@contextmanager
def open_offline(path: Path) -> Iterator[Database]:
    """Open the database of a stopped daemon for writing, and keep daemons from starting meanwhile. Blocks.

    All files get the owner of the state directory, when this runs as root.

    Raises:
        StoreInUse: A daemon is using it.
        NotFound: There is no database.
        StoreCorrupt: It is damaged.
        StoreError: It is the database of another program.
        StoreUnavailable: It cannot be read or written.
    """
    if not path.parent.is_dir():
        raise _no_database(path)
    lock = sqlite_connection.OwnerLock(path.with_suffix(".lock"))
    lock.acquire()
    header = file_identity.HeaderFile(path)
    try:
        file_identity.raise_if_lost(path)
        if not path.exists():
            raise _no_database(path)
        file_identity.set_aside_foreign_wal(path, header)
        sqlite_connection.check_wal(path)
        database = sqlite_connection.connect(path)
        try:
            sqlite_connection.check_usable(database, path)
            yield database
        finally:
            database.close()
    finally:
        header.close()
        _give_to_owner(path.parent)
        lock.release()


def check_offline(path: Path) -> list[str]:
    """Check the whole database of a stopped daemon; return what is wrong with it. See `open_offline`."""
    with open_offline(path) as database:
        return sqlite_connection.check_integrity(database, path)


def backup_offline(path: Path, target: Path, on_copied: backup.OnCopied | None = None) -> None:
    """Copy the database of a stopped daemon to a new file. See `open_offline`, and `backup.copy_database`."""
    with open_offline(path) as database:
        backup.copy_database(database, target, path.parent, on_copied)


def vacuum_offline(path: Path) -> VacuumResult:
    """Give the room of removed rows back, of a stopped daemon. See `open_offline`, and `vacuum`."""
    with open_offline(path) as database:
        return vacuum(database, path)


def migrate_offline(
    path: Path, plugins: Mapping[str, ModuleType | str], *, backups: int, dry_run: bool = False
) -> MigrationReport:
    """Bring all tables of a stopped daemon up to date, after a backup; or say what that would do.

    Args:
        path: The database file.
        plugins: The migrations of plugins: namespace to package.
        backups: How many copies from before migrations are kept.
        dry_run: Whether nothing is changed.

    Raises:
        StoreError: See `open_offline`.
    """
    steps: list[str] = []
    copies: list[Path] = []
    problems: list[str] = []
    clock = SystemClock()
    directory = backup.BackupDirectory(path, max(1, backups), clock)

    def make_backup(why: str) -> Path:
        copies.append(directory.create_before_migration(why))
        return copies[-1]

    with open_offline(path) as database:
        migrator = Migrator(database, path, clock, make_backup)
        for namespace, package in {CORE_NAMESPACE: core, **plugins}.items():
            try:
                steps += (migrator.pending if dry_run else migrator.migrate)(namespace, package)
            except (StoreError, ContractError) as error:
                problems.append(f"the tables of {namespace}: {error_line(error)}")
                if namespace == CORE_NAMESPACE:
                    break  # plugins may refer to the tables of the core
    return MigrationReport(steps, str(copies[0]) if copies else "", problems)


def _no_database(path: Path) -> NotFound:
    return NotFound(
        f"there is no database {path}", hint="the first start of the daemon creates it; check --root", path=path
    )


def _give_to_owner(directory: Path) -> None:
    """Give what root has created in a state directory to its owner."""
    owner = directory.stat()
    if os.geteuid() or not owner.st_uid:
        return
    for each in [*directory.iterdir(), *(directory / "backups").glob("*")]:
        if each.lstat().st_uid == 0:
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
