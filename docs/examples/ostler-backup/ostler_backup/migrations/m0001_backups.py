"""The first tables: backups, and the volumes that exist."""

from __future__ import annotations

from ostler import Database

TABLES = (
    """CREATE TABLE backup_backups (
        archive TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        target TEXT NOT NULL,
        size INTEGER NOT NULL,
        at REAL NOT NULL
    )""",
    "CREATE TABLE backup_volumes (name TEXT PRIMARY KEY)",
)


def forward(database: Database) -> None:
    """Create the tables."""
    for statement in TABLES:
        database.execute_sql(statement)
