"""The journal of events: what was published on journaled topics, and which run of the daemon gave which numbers."""

from __future__ import annotations

from ostler.store.session import Database

TABLES = (
    """CREATE TABLE event_topics (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        host TEXT NOT NULL,
        topic TEXT NOT NULL,
        last INTEGER NOT NULL DEFAULT 0,
        UNIQUE (host, topic)
    )""",
    # Numbers continue over restarts, and each run is an epoch of its own: so a number that was given out by a run whose
    # last writes are lost (a restored copy, a full disk) is told from the same number given again later.
    """CREATE TABLE event_epochs (
        topic_id INTEGER NOT NULL REFERENCES event_topics (id),
        epoch INTEGER NOT NULL,
        first INTEGER NOT NULL,
        PRIMARY KEY (topic_id, epoch)
    ) WITHOUT ROWID""",
    """CREATE TABLE events (
        topic_id INTEGER NOT NULL REFERENCES event_topics (id),
        number INTEGER NOT NULL,
        at REAL NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (topic_id, number)
    ) WITHOUT ROWID""",
)


def forward(database: Database) -> None:
    """Make the tables."""
    for statement in TABLES:
        database.execute_sql(statement)
