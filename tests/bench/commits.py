"""Group commit of the store, beside one commit each on the same disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

from rows import AT_LEAST, FigureRow, median

CALLERS = 64
TABLE = "CREATE TABLE bench (name TEXT PRIMARY KEY, value BLOB)"
INSERT = "INSERT INTO bench VALUES (?, ?)"
VALUE = b"x" * 64
_Waiting: TypeAlias = "tuple[asyncio.Future[None], str]"


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Write for a while, in turns: each row with a commit of its own, and through the store with 64 callers."""
    from ostler.store import Statement

    rounds, seconds = (3, 0.3) if quick else (5, 1.0)
    kinds: dict[str, Callable[[str], Callable[[], object]]] = {
        "functions": lambda name: partial(insert, name),
        "statements": lambda name: Statement(INSERT, (name, VALUE)),
    }
    bare, floor = [], []
    grouped: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        bare.append(one_each(folder / f"bare{number}.db", seconds))
        for kind, make in kinds.items():
            grouped[kind].append(asyncio.run(through_the_store(folder / f"{kind}{number}" / "o.db", seconds, make)))
        floor.append(asyncio.run(bare_group_commit(folder / f"floor{number}.db", seconds)))
    rows = [
        FigureRow(
            name=f"writes through the store, 64 callers, FULL, {kind}", value=median(grouped[kind]), unit="commits/s",
            baseline=median(bare), limit=20, sense=AT_LEAST, relative=True, binding=False,
        ) for kind in kinds
    ]  # fmt: skip
    # What there is to be had: the same with nothing but sqlite3, futures and a deque.
    name = "writes through a bare writer thread, 64 callers, FULL"
    rows.append(FigureRow(name=name, value=median(floor), unit="commits/s", baseline=median(bare)))
    return rows


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to a new database with the table."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(TABLE)
    return connection


def one_each(path: Path, seconds: float) -> float:
    """Insert rows, each in its own transaction, synchronous=FULL; return rows a second."""
    connection = connect(path)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.execute(INSERT, (f"key{count}", VALUE))
        count += 1
    rate = count / (time.perf_counter() - began)
    connection.close()
    return rate


async def through_the_store(path: Path, seconds: float, make: Callable[[str], Callable[[], object]]) -> float:
    """Insert rows with 64 callers, each of which waits until its row is on disk; return rows a second."""
    from ostler.store import Store

    store = Store.open(path)
    await store.awrite(lambda: execute(TABLE))
    written = 0
    began = time.perf_counter()

    async def caller(own: int) -> None:
        nonlocal written
        count = 0
        while time.perf_counter() - began < seconds:
            await store.awrite(make(f"key{own}-{count}"))
            count += 1
        written += count

    await asyncio.gather(*(caller(own) for own in range(CALLERS)))
    rate = written / (time.perf_counter() - began)
    store.close()
    return rate


async def bare_group_commit(path: Path, seconds: float) -> float:
    """Do the same with a writer thread that does nothing else; return rows a second."""
    connection, loop = connect(path), asyncio.get_running_loop()
    queue: SimpleQueue[_Waiting | None] = SimpleQueue()
    writer = threading.Thread(target=commit_groups, args=(connection, queue, loop))
    writer.start()
    written = 0
    began = time.perf_counter()

    async def caller(own: int) -> None:
        nonlocal written
        count = 0
        while time.perf_counter() - began < seconds:
            future = loop.create_future()
            queue.put((future, f"key{own}-{count}"))
            await future
            count += 1
        written += count

    await asyncio.gather(*(caller(own) for own in range(CALLERS)))
    rate = written / (time.perf_counter() - began)
    queue.put(None)
    writer.join()
    connection.close()
    return rate


def commit_groups(
    connection: sqlite3.Connection, queue: SimpleQueue[_Waiting | None], loop: asyncio.AbstractEventLoop
) -> None:
    """Insert all that waits and commit it, until None is in the queue."""

    def resolve(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)

    item = queue.get()
    while item is not None:
        group: list[asyncio.Future[None]] = []
        connection.execute("BEGIN IMMEDIATE")
        while item is not None:
            connection.execute(INSERT, (item[1], VALUE))
            group.append(item[0])
            item = None if queue.empty() else queue.get()
        connection.execute("COMMIT")
        loop.call_soon_threadsafe(resolve, group)
        item = queue.get()


def insert(name: str) -> None:
    """Insert one row; in the store's writer thread."""
    execute(INSERT, name, VALUE)


def execute(statement: str, *values: object) -> None:
    """Run a statement on the database that this thread is writing."""
    from ostler.store.session import current_session

    current_session().database.execute_sql(statement, values)
