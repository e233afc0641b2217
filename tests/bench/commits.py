"""Group commit of the store, beside one commit each on the same disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from functools import partial
from pathlib import Path

from rows import AT_LEAST, FigureRow, median

CALLERS = 64


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Write for a while, in turns: each row with a commit of its own, and through the store with 64 callers."""
    rounds, seconds = (3, 0.3) if quick else (5, 1.0)
    bare, grouped = [], []
    for number in range(rounds):
        bare.append(one_each(folder / f"bare{number}.db", seconds))
        grouped.append(asyncio.run(through_the_store(folder / f"store{number}" / "ostler.db", seconds)))
    return [
        FigureRow(
            name="writes through the store, 64 callers, FULL", value=median(grouped), unit="commits/s",
            baseline=median(bare), limit=20, sense=AT_LEAST, relative=True, binding=False,
        )
    ]  # fmt: skip


def one_each(path: Path, seconds: float) -> float:
    """Insert rows, each in its own transaction, synchronous=FULL; return rows a second."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE bench (name TEXT PRIMARY KEY, value BLOB)")
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.execute("INSERT INTO bench VALUES (?, ?)", (f"key{count}", b"x" * 64))
        count += 1
    rate = count / (time.perf_counter() - began)
    connection.close()
    return rate


async def through_the_store(path: Path, seconds: float) -> float:
    """Insert rows with 64 callers, each of which waits until its row is on disk; return rows a second."""
    from ostler.store import Store

    store = Store.open(path)
    await store.awrite(lambda: execute("CREATE TABLE bench (name TEXT PRIMARY KEY, value BLOB)"))
    written = 0
    began = time.perf_counter()

    async def caller(own: int) -> None:
        nonlocal written
        count = 0
        while time.perf_counter() - began < seconds:
            await store.awrite(partial(insert, f"key{own}-{count}"))
            count += 1
        written += count

    await asyncio.gather(*(caller(own) for own in range(CALLERS)))
    rate = written / (time.perf_counter() - began)
    store.close()
    return rate


def insert(name: str) -> None:
    """Insert one row; in the store's writer thread."""
    execute("INSERT INTO bench VALUES (?, ?)", name, b"x" * 64)


def execute(statement: str, *values: object) -> None:
    """Run a statement on the database that this thread is writing."""
    from ostler.store.session import current_session

    current_session().database.execute_sql(statement, values)
