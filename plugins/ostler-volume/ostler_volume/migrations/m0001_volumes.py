"""The first tables: volumes, their snapshots, and where they are attached."""

from __future__ import annotations

from ostler import Database

TABLES = (
    """CREATE TABLE volume_volumes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        name TEXT NOT NULL,
        backend TEXT NOT NULL,
        size INTEGER NOT NULL,
        promised INTEGER NOT NULL,
        state TEXT NOT NULL,
        why TEXT NOT NULL DEFAULT '',
        since REAL NOT NULL,
        fault TEXT NOT NULL DEFAULT '',
        source TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        UNIQUE (topic, name)
    )""",
    "CREATE INDEX volume_volumes_backend ON volume_volumes (topic, backend)",
    # Queried at each change of a volume or snapshot: the copies in progress of it.
    "CREATE INDEX volume_volumes_copies ON volume_volumes (topic, source) WHERE state = 'creating'",
    """CREATE TABLE volume_snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        volume_id INTEGER NOT NULL REFERENCES volume_volumes (id),
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        state TEXT NOT NULL,
        why TEXT NOT NULL DEFAULT '',
        since REAL NOT NULL,
        fault TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        UNIQUE (volume_id, name)
    )""",
    """CREATE TABLE volume_attachments (
        volume_id INTEGER PRIMARY KEY REFERENCES volume_volumes (id) ON DELETE CASCADE,
        device TEXT NOT NULL,
        attached_at REAL NOT NULL
    )""",
)


def forward(database: Database) -> None:
    """Create the tables."""
    for statement in TABLES:
        database.execute_sql(statement)
