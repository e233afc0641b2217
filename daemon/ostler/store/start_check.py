"""Finds what would keep a start from opening or migrating its database; changes nothing, also while a daemon runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import msgspec

from ostler.errors import ContractError, StoreError
from ostler.store import migrations as core
from ostler.store.migrate import CORE_NAMESPACE, MigrationPlanner
from ostler.store.session import Database
from ostler.store.sqlite_errors import is_database_error, is_transient
from ostler.store.sqlite_files import file_identity, sqlite_connection
from ostler.store.sqlite_files.shm_space import ShmSpace


class DatabaseCheck(msgspec.Struct, frozen=True):
    """What a start would find.

    Attributes:
        fault: Why the database cannot be opened or migrated; None if it can.
        namespaces: Why the tables of plugins cannot be migrated, by their namespaces.
        pending: The migrations that a start would apply, each `NAMESPACE NUMBER NAME`.
    """

    fault: StoreError | ContractError | None
    namespaces: Mapping[str, StoreError | ContractError] = {}
    pending: list[str] = []


def check_database(path: Path, plugins: Mapping[str, ModuleType | str], *, read_content: bool = True) -> DatabaseCheck:
    """Return what a start would refuse of a database, which need not exist. Blocks; any thread.

    What is no reason for a start to fail (a full or read-only disk, a lock of another program, a daemon that is using
    the database now) is not a fault. Imports the modules of pending migrations and runs none of their code besides.

    Args:
        path: The database file.
        plugins: The migrations of plugins: namespace to package.
        read_content: Whether its pages are checked; a start leaves that to `Store.open`, which does it anyway.
    """
    failed: dict[str, StoreError | ContractError] = {}
    pending: list[str] = []
    try:
        with _open(path, read_content) as database:
            planner = MigrationPlanner(database, path)
            for namespace, package in {CORE_NAMESPACE: core, **plugins}.items():
                try:
                    pending += planner.pending(namespace, package)
                except (StoreError, ContractError) as error:
                    if namespace == CORE_NAMESPACE or is_database_error(error):
                        raise
                    failed[namespace] = error
    except (StoreError, ContractError) as error:
        return DatabaseCheck(None if is_transient(error) else error, failed)
    return DatabaseCheck(None, failed, pending)


@contextmanager
def _open(path: Path, read_content: bool) -> Iterator[Database | None]:
    """Open the database for a check inside the block, None if it does not exist."""
    sqlite_connection.check_file_types(path)
    file_identity.raise_if_lost(path)
    if not path.exists() or not path.stat().st_size:
        yield None
        return
    # Without a log no daemon has it open; SQLite would create the log, and a start would take it for a sign of one.
    ignore_wal = not file_identity.wal_path(path).exists() or _has_foreign_wal(path)
    if read_content and not ignore_wal:
        sqlite_connection.check_wal(path)
    if not ignore_wal:
        ShmSpace(path).require()  # the index is mapped into memory also for who only reads
    database = sqlite_connection.connect_for_check(path, ignore_wal=ignore_wal)
    try:
        if read_content:
            sqlite_connection.check_content(database, path)
        yield database
    finally:
        database.close()


def _has_foreign_wal(path: Path) -> bool:
    """Return whether the write-ahead log belongs to another database: a start would move it away."""
    ids = file_identity.IdentityFile(path).ids()
    if ids is None or not file_identity.wal_size(path):
        return False
    header = file_identity.HeaderFile(path)
    try:
        with suppress(OSError):
            return header.read_id() not in ids
        return False
    finally:
        header.close()
