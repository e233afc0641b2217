"""Locks that daemons with one database share; each row is what one run of a daemon holds."""

from __future__ import annotations

from ostler.store.session import Database

_LOCKS = """CREATE TABLE locks (
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    run TEXT NOT NULL,
    host TEXT NOT NULL,
    shared INTEGER NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    since REAL NOT NULL,
    lease_boot_id TEXT NOT NULL,
    lease_boot REAL NOT NULL,
    lease_wall REAL NOT NULL,
    PRIMARY KEY (service, name, run)
) WITHOUT ROWID"""


def forward(database: Database) -> None:
    """Create the table."""
    database.execute_sql(_LOCKS)
