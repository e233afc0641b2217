"""How late heartbeats are on disk while the database is written as fast as it goes."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from commits import CALLERS, execute, insert
from rows import FigureRow, percentile

from ostler.clock import SystemClock
from ostler.store import ServiceRecords, ServiceReport, Store
from ostler.types import ServiceState

_INTERVAL = 0.02
_TOPICS = ("volume", "scheduler", "lamp", "fan", "door")


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Report five services every 20 ms, synchronous=FULL: alone, and during 50,000 writes of 64 callers."""
    writes = 5_000 if quick else 50_000
    idle = asyncio.run(_lateness(folder / "idle" / "ostler.db", 0))
    busy = asyncio.run(_lateness(folder / "busy" / "ostler.db", writes))
    return [
        FigureRow(
            name=f"heartbeat on disk after its due time, p99, during {writes:,} writes",
            value=percentile(busy, 0.99) * 1000, unit="ms", baseline=percentile(idle, 0.99) * 1000, limit=50,
            note=f"{len(busy)} heartbeats",
        ),
        FigureRow(name="the same, p50", value=percentile(busy, 0.5) * 1000, unit="ms",
                  baseline=percentile(idle, 0.5) * 1000),
    ]  # fmt: skip


async def _lateness(path: Path, writes: int) -> list[float]:
    """Return by how many seconds after its due time each heartbeat was committed."""
    clock = SystemClock()
    store = Store.open(path, clock=clock)
    records = ServiceRecords(store, clock, "node1")
    for topic in _TOPICS:
        await store.awrite(partial(records.register, topic, topic, "1.0"))
    await store.awrite(lambda: execute("CREATE TABLE bench (name TEXT PRIMARY KEY, value BLOB)"))
    left = iter(range(writes))
    reports = [ServiceReport(topic, ServiceState.UP) for topic in _TOPICS]

    async def caller() -> None:
        for number in left:
            await store.awrite(partial(insert, f"key{number}"))

    writing = asyncio.gather(*(caller() for _ in range(CALLERS))) if writes else asyncio.sleep(2)
    busy = asyncio.ensure_future(writing)
    found, due = [], time.perf_counter()
    while not busy.done():
        due += _INTERVAL
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await store.awrite(lambda: records.save_reports(reports), label="report state", urgent=True)
        found.append(time.perf_counter() - due)
        due = max(due, time.perf_counter() - _INTERVAL)
    await busy
    await asyncio.to_thread(store.close)
    return found
