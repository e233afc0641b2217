"""What an operator sets on a service beyond enabling it, each with who, why and since when; and its last evidence."""

from __future__ import annotations

from ostler.store.session import Database

_COLUMNS = (
    "frozen_at REAL NOT NULL DEFAULT 0",
    "frozen_by TEXT NOT NULL DEFAULT ''",
    "frozen_reason TEXT NOT NULL DEFAULT ''",
    "forced_down_at REAL NOT NULL DEFAULT 0",
    "forced_down_by TEXT NOT NULL DEFAULT ''",
    "forced_down_reason TEXT NOT NULL DEFAULT ''",
    "signs TEXT NOT NULL DEFAULT ''",
)


def forward(database: Database) -> None:
    """Add the columns."""
    for column in _COLUMNS:
        database.execute_sql(f"ALTER TABLE services ADD COLUMN {column}")
