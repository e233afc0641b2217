"""Operations: work that was accepted and survives the daemon, and the steps that it has recorded."""

from __future__ import annotations

from ostler.store.session import Database

_OPERATIONS = """CREATE TABLE operations (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    topic TEXT NOT NULL,
    method TEXT NOT NULL,
    arguments BLOB NOT NULL,
    flags INTEGER NOT NULL,
    account TEXT NOT NULL,
    requester BLOB NOT NULL,
    trace TEXT NOT NULL,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    since REAL NOT NULL,
    submitted_at REAL NOT NULL,
    submitted_boot_id TEXT NOT NULL,
    submitted_boot REAL NOT NULL,
    time_limit REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,
    cancelled_by TEXT NOT NULL DEFAULT '',
    owner TEXT NOT NULL DEFAULT '',
    lease_boot_id TEXT NOT NULL DEFAULT '',
    lease_boot REAL NOT NULL DEFAULT 0,
    lease_wall REAL NOT NULL DEFAULT 0,
    done REAL NOT NULL DEFAULT 0,
    total REAL NOT NULL DEFAULT 0,
    text TEXT NOT NULL DEFAULT '',
    result BLOB,
    error BLOB
)"""

_STEPS = """CREATE TABLE operation_steps (
    operation INTEGER NOT NULL REFERENCES operations (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    result BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (operation, name)
) WITHOUT ROWID"""

# Both are partial: a start looks at what has not ended alone, however many ended operations are kept.
_PENDING = """CREATE INDEX operations_pending ON operations (host, topic)
    WHERE state IN ('queued', 'running', 'waiting')"""
_ENDED = """CREATE INDEX operations_ended ON operations (since)
    WHERE state IN ('succeeded', 'failed', 'cancelled')"""


def forward(database: Database) -> None:
    """Create the tables."""
    for statement in (_OPERATIONS, _STEPS, _PENDING, _ENDED):
        database.execute_sql(statement)
