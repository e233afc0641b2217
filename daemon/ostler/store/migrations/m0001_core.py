"""The first tables: services, capabilities, periodic runs, and the key-value store."""

from __future__ import annotations

from ostler.store.session import Database

TABLES = (
    """CREATE TABLE services (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        host TEXT NOT NULL,
        manager TEXT NOT NULL,
        rpc_version TEXT NOT NULL,
        state TEXT NOT NULL,
        why TEXT NOT NULL DEFAULT '',
        since REAL NOT NULL,
        beat INTEGER NOT NULL DEFAULT 1,
        boot_id TEXT NOT NULL,
        boot_time REAL NOT NULL,
        reported_at REAL NOT NULL,
        enabled INTEGER NOT NULL DEFAULT 1,
        disabled_reason TEXT NOT NULL DEFAULT '',
        disabled_by TEXT NOT NULL DEFAULT '',
        enabled_at REAL NOT NULL DEFAULT 0,
        UNIQUE (topic, host)
    )""",
    """CREATE TABLE capabilities (
        topic TEXT NOT NULL,
        host TEXT NOT NULL,
        backends TEXT NOT NULL,
        number INTEGER NOT NULL DEFAULT 1,
        boot_id TEXT NOT NULL,
        boot_time REAL NOT NULL,
        reported_at REAL NOT NULL,
        PRIMARY KEY (topic, host)
    ) WITHOUT ROWID""",
    """CREATE TABLE periodic_runs (
        host TEXT NOT NULL,
        service TEXT NOT NULL,
        task TEXT NOT NULL,
        runs INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        last_run REAL NOT NULL,
        last_seconds REAL NOT NULL,
        last_error TEXT NOT NULL,
        PRIMARY KEY (host, service, task)
    ) WITHOUT ROWID""",
    """CREATE TABLE key_value (
        namespace TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (namespace, key)
    ) WITHOUT ROWID""",
    # One row that the watchdog writes, as evidence that the disk takes what is written to it.
    "CREATE TABLE pulse (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL)",
    "INSERT INTO pulse VALUES (1, 0)",
)


def forward(database: Database) -> None:
    """Make the tables."""
    for statement in TABLES:
        database.execute_sql(statement)
