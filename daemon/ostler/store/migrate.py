"""Migrates the tables of the core and of each plugin to the installed version; forward only."""

from __future__ import annotations

import logging
import pkgutil
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ostler.clock import Clock
from ostler.errors import ContractError, SchemaTooNew, StoreError, error_line
from ostler.log import message_id
from ostler.store.session import Database, open_session
from ostler.store.sqlite_files.sqlite_connection import translate_errors

_log = logging.getLogger(__name__)
_FILE_PATTERN = re.compile(r"m(\d{4})_(\w+)")

CORE_NAMESPACE = "ostler"
"""The namespace of the core's own migrations."""
_CREATE_TABLE = """CREATE TABLE IF NOT EXISTS ostler_migrations (
    namespace TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, applied_at REAL NOT NULL,
    PRIMARY KEY (namespace, number)
) WITHOUT ROWID"""


class Migration(NamedTuple):
    """One step: its number, its name, and the module that has `forward(database)`."""

    number: int
    name: str
    module: str


def list_migrations(namespace: str, package: ModuleType | str) -> list[Migration]:
    """Return the migrations of a package in order; their modules are not imported.

    Raises:
        ContractError: The package cannot be imported, or its numbers have gaps or duplicates.
    """
    try:
        home = import_module(package) if isinstance(package, str) else package
        paths = list(home.__path__)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"the migrations of {namespace} cannot be imported from package {package}: {error_line(error)}",
            hint="name a package with modules `m0001_name.py`, each with a function `forward(database)`",
        ) from error
    found = sorted(
        Migration(int(match[1]), match[2], f"{home.__name__}.{match[0]}")
        for entry in pkgutil.iter_modules(paths)
        if (match := _FILE_PATTERN.fullmatch(entry.name))
    )
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        names = ", ".join(step.module.rpartition(".")[2] for step in found)
        raise ContractError(
            f"the migrations of {namespace} are not numbered 1, 2, 3 without gaps or duplicates: {names}",
            hint="number each new migration one above the last, and never remove a released one",
        )
    return found


def _step_lines(namespace: str, steps: Iterable[Migration]) -> list[str]:
    return [f"{namespace} {step.number:04d} {step.name}" for step in steps]


class MigrationPlanner:
    """Compares the migrations of one database with those that are installed; changes nothing.

    Args:
        database: A connection, which may be read-only; None for a database that does not exist yet.
        path: The database file, for messages.
    """

    def __init__(self, database: Database | None, path: Path) -> None:
        self._reader = database
        self._path = path

    def applied(self, namespace: str) -> dict[int, str]:
        """Return the numbers and names of the applied migrations."""
        if self._reader is None:
            return {}
        with translate_errors(self._path):
            if not self._reader.table_exists("ostler_migrations"):
                return {}
            query = "SELECT number, name FROM ostler_migrations WHERE namespace = ? ORDER BY number"
            return dict(self._reader.execute_sql(query, (namespace,)).fetchall())

    def pending(self, namespace: str, package: ModuleType | str) -> list[str]:
        """Return the steps that `Migrator.migrate` would apply; raises what that raises before it changes anything."""
        _, pending = self._find_pending(namespace, package)
        for step in pending:
            self._load_forward(namespace, step)
        return _step_lines(namespace, pending)

    def _find_pending(self, namespace: str, package: ModuleType | str) -> tuple[dict[int, str], list[Migration]]:
        known = list_migrations(namespace, package)
        applied = self.applied(namespace)
        self._raise_if_unknown(namespace, known, applied)
        return applied, [step for step in known if step.number not in applied]

    def _raise_if_unknown(self, namespace: str, known: list[Migration], applied: dict[int, str]) -> None:
        latest = max(applied, default=0)
        if latest > len(known):
            raise SchemaTooNew(
                f"the tables of {namespace} in {self._path} are at version {latest} ({applied[latest]}), "
                f"this installation only knows versions up to {len(known)}",
                hint=f"install a version of {namespace} that is at least as new, "
                "or restore a backup with `ostler db restore FILE`",
                namespace=namespace,
                found=latest,
                known=len(known),
            )
        for step in known:
            if applied.get(step.number, step.name) != step.name:
                raise StoreError(
                    f"migration {step.number} of {namespace} is {step.name!r} here, "
                    f"but {applied[step.number]!r} was applied to {self._path} under that number",
                    hint="two different plugins use one namespace, or a released migration was renamed",
                    namespace=namespace,
                )

    @staticmethod
    def _load_forward(namespace: str, step: Migration) -> Callable[[Database], object]:
        """Import the step before anything is changed, so that a broken module changes nothing."""
        try:
            forward = import_module(step.module).forward
        except (Exception, SystemExit) as error:
            raise ContractError(
                f"migration {step.module} of {namespace} cannot be loaded: {error_line(error)}",
                hint="each migration is a module with a function `forward(database)`",
            ) from error
        found: Callable[[Database], object] = forward
        return found


class Migrator(MigrationPlanner):
    """Applies migrations to one database.

    Args:
        database: A connection for writing; no transaction may be open on it.
        path: The database file, for messages.
        clock: The source of time.
        backup: Makes the backup before the first change to a database with content; returns its path.
    """

    def __init__(self, database: Database, path: Path, clock: Clock, backup: Callable[[str], Path]) -> None:
        super().__init__(database, path)
        self._database = database
        self._clock = clock
        self._backup = backup
        with translate_errors(path):
            database.execute_sql(_CREATE_TABLE)
            count = database.execute_sql("SELECT count(*) FROM ostler_migrations").fetchone()[0]
        self._backup_hint: str | None = None if count else ""  # an empty database needs no backup

    def migrate(self, namespace: str, package: ModuleType | str) -> list[str]:
        """Apply the missing migrations, each step in a transaction of its own; return the names of the steps.

        Raises:
            SchemaTooNew: The database has migrations that this version does not know.
            StoreError: A step failed; it and the following ones were not applied.
            ContractError: The migrations are not valid.
        """
        applied, pending = self._find_pending(namespace, package)
        if not pending:
            return []
        steps = [(step, self._load_forward(namespace, step)) for step in pending]
        kept = self._back_up(namespace, max(applied, default=0), pending[-1].number)
        for step, forward in steps:
            self._apply(namespace, step, forward, kept)
        return _step_lines(namespace, pending)

    def _back_up(self, namespace: str, version: int, wanted: int) -> str:
        """Make a backup before the first change, unless the database is new; return a hint that names it."""
        if self._backup_hint is None:
            where = self._backup(f"before-{namespace}-{version:04d}-to-{wanted:04d}")
            self._backup_hint = f"it was rolled back; the previous state is saved in {where}"
        return self._backup_hint

    def _apply(self, namespace: str, step: Migration, forward: Callable[[Database], object], backup_hint: str) -> None:
        database = self._database
        # Foreign keys off, as SQLite advises for rebuilding tables; they are checked before the commit instead.
        database.execute_sql("PRAGMA foreign_keys = OFF")
        try:
            with (
                translate_errors(self._path),
                open_session(self, database, is_writing=True),
                database.atomic("IMMEDIATE"),
            ):
                forward(database)
                self._check_references(database.execute_sql("PRAGMA foreign_key_check").fetchall())
                row = (namespace, step.number, step.name, self._clock.wall())
                database.execute_sql("INSERT INTO ostler_migrations VALUES (?, ?, ?, ?)", row)
        except StoreError:
            raise
        except (Exception, SystemExit) as error:
            raise StoreError(
                f"migration {step.number:04d} {step.name} of {namespace} failed: {error_line(error)}",
                hint=backup_hint or "it was rolled back",
                namespace=namespace,
                number=step.number,
            ) from error
        finally:
            database.execute_sql("PRAGMA foreign_keys = ON")
        text = "the tables of %s are at version %d (%s)"
        _log.info(text, namespace, step.number, step.name, extra=message_id("store-migrated"))

    @staticmethod
    def _check_references(broken: Iterable[tuple[object, ...]]) -> None:
        tables = sorted({f"{row[0]} to {row[2]}" for row in broken})
        if tables:
            raise ValueError(f"it leaves broken references: from {', '.join(tables)}")
