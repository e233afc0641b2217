"""The audit log: who asked for what that changes something or was refused, and how it ended."""

from __future__ import annotations

from ostler.store.session import Database

TABLE = """CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    user TEXT NOT NULL,
    uid INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    key TEXT NOT NULL,
    topic TEXT NOT NULL,
    method TEXT NOT NULL,
    arguments TEXT NOT NULL,
    result TEXT NOT NULL,
    text TEXT NOT NULL,
    refused INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    trace TEXT NOT NULL,
    seconds REAL NOT NULL,
    times INTEGER NOT NULL,
    last REAL NOT NULL
)"""


def forward(database: Database) -> None:
    """Make the table."""
    database.execute_sql(TABLE)
