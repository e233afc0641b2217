"""The versions of the namespaces of a service, alongside that of its manager."""

from __future__ import annotations

from ostler.store.session import Database


def forward(database: Database) -> None:
    """Add the column: a JSON map of namespace to version, empty for none."""
    database.execute_sql("ALTER TABLE services ADD COLUMN namespaces TEXT NOT NULL DEFAULT ''")
