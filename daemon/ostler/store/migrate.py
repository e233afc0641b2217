"""Bringing the tables of the core and of each plugin to the state that this version knows; forward only."""

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
from ostler.errors import ContractError, SchemaTooNew, StoreError, describe
from ostler.log import event
from ostler.store.current import Database, session
from ostler.store.database import translated

_log = logging.getLogger(__name__)
_FILE = re.compile(r"m(\d{4})_(\w+)")

_TABLE = """CREATE TABLE IF NOT EXISTS ostler_migrations (
    namespace TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, applied_at REAL NOT NULL,
    PRIMARY KEY (namespace, number)
) WITHOUT ROWID"""


class Migration(NamedTuple):
    """One step: its number, its name, and the module that has `forward(database)`."""

    number: int
    name: str
    module: str


def migrations_of(namespace: str, package: ModuleType | str) -> list[Migration]:
    """Return the migrations of a package in order; their modules are not imported.

    Raises:
        ContractError: The package cannot be imported, or its numbers have a gap or are used twice.
    """
    try:
        home = import_module(package) if isinstance(package, str) else package
        paths = list(home.__path__)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"the migrations of {namespace} ({package}) are no package that can be imported: {describe(error)}",
            hint="name a package with modules `m0001_what.py`, each with `forward(database)`",
        ) from error
    found = sorted(
        Migration(int(match[1]), match[2], f"{home.__name__}.{match[0]}")
        for entry in pkgutil.iter_modules(paths)
        if (match := _FILE.fullmatch(entry.name))
    )
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        names = ", ".join(step.module.rpartition(".")[2] for step in found)
        raise ContractError(
            f"the migrations of {namespace} are not numbered 1, 2, 3 without gap or double: {names}",
            hint="number each new migration one above the last, and never remove one that was released",
        )
    return found


class Migrator:
    """Applies migrations to one database.

    Args:
        database: A connection for writing; no transaction may be open on it.
        path: The database file, for messages.
        clock: The source of time.
        backup: Makes the backup before the first change to a database that held something; returns where it is.
    """

    def __init__(self, database: Database, path: Path, clock: Clock, backup: Callable[[str], Path]) -> None:
        self._database = database
        self._path = path
        self._clock = clock
        self._backup = backup
        with translated(path):
            database.execute_sql(_TABLE)
            count = database.execute_sql("SELECT count(*) FROM ostler_migrations").fetchone()[0]
        self._kept: str | None = None if count else ""  # of nothing, no backup is made

    def applied(self, namespace: str) -> dict[int, str]:
        """Return the numbers and names of the migrations that the database has had."""
        with translated(self._path):
            query = "SELECT number, name FROM ostler_migrations WHERE namespace = ? ORDER BY number"
            return dict(self._database.execute_sql(query, (namespace,)).fetchall())

    def migrate(self, namespace: str, package: ModuleType | str) -> list[str]:
        """Apply what is missing, each step in a transaction of its own; return the names of the steps.

        Raises:
            SchemaTooNew: The database has had migrations that this version does not know.
            StoreError: A step failed; it and what follows it were not applied.
            ContractError: The migrations are not as they should be.
        """
        known = migrations_of(namespace, package)
        applied = self.applied(namespace)
        self._refuse_strange(namespace, known, applied)
        pending = [step for step in known if step.number not in applied]
        if not pending:
            return []
        steps = [(step, self._forward_of(namespace, step)) for step in pending]
        kept = self._keep(namespace, max(applied, default=0), pending[-1].number)
        for step, forward in steps:
            self._apply(namespace, step, forward, kept)
        return [f"{namespace} {step.number:04d} {step.name}" for step in pending]

    def _refuse_strange(self, namespace: str, known: list[Migration], applied: dict[int, str]) -> None:
        latest = max(applied, default=0)
        if latest > len(known):
            raise SchemaTooNew(
                f"the tables of {namespace} in {self._path} are at version {latest} ({applied[latest]}), "
                f"this installation knows up to {len(known)}",
                hint=f"install a version of {namespace} that is at least as new, "
                "or put back a backup with `ostler db restore FILE`",
                namespace=namespace,
                found=latest,
                known=len(known),
            )
        for step in known:
            if applied.get(step.number, step.name) != step.name:
                raise StoreError(
                    f"migration {step.number} of {namespace} is {step.name!r} here, "
                    f"but {self._path} was given {applied[step.number]!r} under that number",
                    hint="two different plugins use one namespace, or a released migration was renamed",
                    namespace=namespace,
                )

    @staticmethod
    def _forward_of(namespace: str, step: Migration) -> Callable[[Database], object]:
        """Import the step before anything is changed, so that a broken module changes nothing."""
        try:
            forward = import_module(step.module).forward
        except (Exception, SystemExit) as error:
            raise ContractError(
                f"migration {step.module} of {namespace} cannot be loaded: {describe(error)}",
                hint="each migration is a module with a function `forward(database)`",
            ) from error
        found: Callable[[Database], object] = forward
        return found

    def _keep(self, namespace: str, version: int, wanted: int) -> str:
        """Make a backup before the first change, unless the database is new; return a hint that names it."""
        if self._kept is None:
            where = self._backup(f"before-{namespace}-{version:04d}-to-{wanted:04d}")
            self._kept = f"nothing of it was applied; the state before is kept in {where}"
        return self._kept

    def _apply(self, namespace: str, step: Migration, forward: Callable[[Database], object], kept: str) -> None:
        database = self._database
        # Foreign keys off, as SQLite advises for tables that are rebuilt; they are checked before the commit instead.
        database.execute_sql("PRAGMA foreign_keys = OFF")
        try:
            with translated(self._path), session(self, database, writing=True), database.atomic("IMMEDIATE"):
                forward(database)
                self._check_references(database.execute_sql("PRAGMA foreign_key_check").fetchall())
                row = (namespace, step.number, step.name, self._clock.wall())
                database.execute_sql("INSERT INTO ostler_migrations VALUES (?, ?, ?, ?)", row)
        except StoreError:
            raise
        except (Exception, SystemExit) as error:
            raise StoreError(
                f"migration {step.number:04d} {step.name} of {namespace} failed: {describe(error)}",
                hint=kept or "nothing of it was applied",
                namespace=namespace,
                number=step.number,
            ) from error
        finally:
            database.execute_sql("PRAGMA foreign_keys = ON")
        text = "the tables of %s are at version %d (%s)"
        _log.info(text, namespace, step.number, step.name, extra=event("store-migrated"))

    @staticmethod
    def _check_references(broken: Iterable[tuple[object, ...]]) -> None:
        tables = sorted({f"{row[0]} to {row[2]}" for row in broken})
        if tables:
            raise ValueError(f"it leaves references that lead nowhere: from {', '.join(tables)}")
