"""Tokens, which stand for a name and a role; of a secret only its SHA-256 is stored."""

from __future__ import annotations

from ostler.store.session import Database

_TOKENS = """CREATE TABLE tokens (
    host TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at REAL NOT NULL,
    made_by TEXT NOT NULL,
    expires_at REAL NOT NULL,
    last_used_at REAL NOT NULL,
    PRIMARY KEY (host, name)
) WITHOUT ROWID"""


def forward(database: Database) -> None:
    """Create the table."""
    database.execute_sql(_TOKENS)
