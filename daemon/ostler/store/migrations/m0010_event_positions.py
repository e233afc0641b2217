"""How far event handlers are in journaled topics: one row for each handler, host and topic."""

from __future__ import annotations

from ostler.store.session import Database

_POSITIONS = """CREATE TABLE event_positions (
    host TEXT NOT NULL,
    service TEXT NOT NULL,
    handler TEXT NOT NULL,
    source TEXT NOT NULL,
    topic TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (host, service, handler, source, topic)
) WITHOUT ROWID"""


def forward(database: Database) -> None:
    """Create the table."""
    database.execute_sql(_POSITIONS)
