"""The data of each backend other than its volumes: its file system, and how much is written."""

from __future__ import annotations

from ostler import Database


def forward(database: Database) -> None:
    """Create the table."""
    database.execute_sql(
        """CREATE TABLE volume_backends (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            topic TEXT NOT NULL,
            name TEXT NOT NULL,
            filesystem TEXT NOT NULL DEFAULT '',
            oversubscription REAL NOT NULL DEFAULT 1,
            written INTEGER NOT NULL DEFAULT 0,
            unrecorded INTEGER NOT NULL DEFAULT 0,
            UNIQUE (topic, name)
        )"""
    )
