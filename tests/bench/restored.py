"""exec to READY of a daemon with many operations in its database, beside one with an empty database."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import FigureRow, median

ENDED, RESUMABLE = 100_000, 1_000
CONFIG = f"""
[operations]
count = {2 * ENDED}
""" + ECHO.format(topic="echo")
_TEMPLATE = "template"
_COPY = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
INSERT INTO operations (id, {columns}) SELECT ? || n, {columns} FROM operations, numbers WHERE id = ?
"""


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Start both some times, in turns; what was resumed is made resumable again before each start."""
    empty, full = (DaemonUnderTest(folder / name, BUNDLED + CONFIG) for name in ("empty", "full"))
    ready: dict[str, list[float]] = {"empty": [], "full": []}
    try:
        for daemon in (empty, full):
            daemon.start()  # makes the database and warms the page cache; not counted
            if daemon is full:
                _submit_template(full.root)
            daemon.stop()
        _fill(full.root / "state" / "ostler.db")
        for _ in range(3 if quick else 9):
            ready["empty"].append(empty.start())
            empty.stop()
            _interrupt(full.root / "state" / "ostler.db")
            ready["full"].append(full.start())
            full.stop()
    finally:
        empty.remove()
        full.remove()
    return [
        FigureRow(
            name=f"exec to READY with {ENDED:,} ended and {RESUMABLE:,} resumable operations", unit="s",
            value=median(ready["full"]), baseline=median(ready["empty"]), limit=1.5, relative=True,
        )
    ]  # fmt: skip


def _submit_template(root: Path) -> None:
    from ostler import Client

    with Client(root=str(root)) as client:
        client.on(request_id=_TEMPLATE).submit("echo", "resumable").result(timeout=30)


def _fill(database: Path) -> None:
    connection = sqlite3.connect(database)
    names = [row[1] for row in connection.execute("PRAGMA table_info(operations)")]
    columns = ", ".join(name for name in names if name not in ("number", "id"))
    copy = partial(connection.execute, _COPY.format(columns=columns))
    copy((ENDED, "ended-", _TEMPLATE))
    copy((RESUMABLE, "left-", _TEMPLATE))
    connection.commit()
    connection.close()


def _interrupt(database: Path) -> None:
    """Make the resumable operations what a run of the daemon that was killed leaves."""
    connection = sqlite3.connect(database)
    changed = connection.execute(
        "UPDATE operations SET state = 'running', owner = 'earlier', result = NULL, interruptions = 0"
        " WHERE id LIKE 'left-%'"
    ).rowcount
    connection.commit()
    connection.close()
    if changed != RESUMABLE:
        raise RuntimeError(f"{changed} operations are resumable instead of {RESUMABLE}")
