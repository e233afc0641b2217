"""What is due, paused and has run of periodic tasks."""

from __future__ import annotations

from ostler.store.session import Database

STATEMENTS = (
    "ALTER TABLE periodic_runs ADD COLUMN last_due REAL NOT NULL DEFAULT 0",
    "ALTER TABLE periodic_runs ADD COLUMN paused_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE periodic_runs ADD COLUMN paused_by TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE periodic_runs ADD COLUMN pause_reason TEXT NOT NULL DEFAULT ''",
    # One row for each task, with the last runs as a JSON list: bounded by itself, and one write for many runs.
    """CREATE TABLE periodic_history (
        host TEXT NOT NULL,
        service TEXT NOT NULL,
        task TEXT NOT NULL,
        runs TEXT NOT NULL,
        PRIMARY KEY (host, service, task)
    ) WITHOUT ROWID""",
)


def forward(database: Database) -> None:
    """Add the columns and the table."""
    for statement in STATEMENTS:
        database.execute_sql(statement)
