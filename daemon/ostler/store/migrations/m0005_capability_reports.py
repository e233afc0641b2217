"""Which run of a daemon has reported capabilities, in which order, and what it does not offer."""

from __future__ import annotations

from ostler.store.session import Database


def forward(database: Database) -> None:
    """Add the columns: the instance, its sequence, and a JSON object of ages and of what is withheld."""
    for column in (
        "instance TEXT NOT NULL DEFAULT ''",
        "sequence INTEGER NOT NULL DEFAULT 0",
        "details TEXT NOT NULL DEFAULT '{}'",
    ):
        database.execute_sql(f"ALTER TABLE capabilities ADD COLUMN {column}")
