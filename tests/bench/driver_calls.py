"""A call of a driver in a process of its own beside the same in a thread, and what the process costs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from rows import FigureRow

from ostler.clock import SystemClock
from ostler.driver import Driver, DriverEnvironment, Drivers, DriverSpec


class Adder(Driver):
    """Does nearly nothing."""

    def add(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b

    def pid(self) -> int:
        """Return the number of the process."""
        return os.getpid()


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Call the same driver both ways in turns, from the loop, one call at a time."""
    return asyncio.run(_measure(1_000 if quick else 5_000, 3 if quick else 7))


async def _measure(calls: int, rounds: int) -> list[FigureRow]:
    drivers = Drivers({kind: _spec(kind) for kind in ("thread", "process")}, asyncio.get_running_loop(), SystemClock())
    began = time.perf_counter()
    await drivers.start()
    if late := await drivers.wait(30):
        raise RuntimeError(f"not ready: {late}")
    started = time.perf_counter() - began
    pid = await drivers.call("process", "pid")
    seconds: dict[str, list[float]] = {"thread": [], "process": []}
    for _ in range(rounds):
        for kind, found in seconds.items():
            began = time.perf_counter()
            for _ in range(calls):
                await drivers.call(kind, "add", 1, 2)
            found.append((time.perf_counter() - began) / calls)
    memory = Path(f"/proc/{pid}/smaps_rollup").read_text().partition("Private_Dirty:")[2].split()[0]
    await drivers.stop(5)
    # The best round: in the others something else had the processor, of which a call in three threads has more.
    thread, process = (min(found) * 1e6 for found in seconds.values())
    return [
        FigureRow(
            name="call of a driver in a process of its own", value=process, unit="us", baseline=thread, limit=2.5,
            relative=True, note="beside a call in a thread",
        ),
        FigureRow(name="memory of a driver's process", value=int(memory) / 1024, unit="MB", limit=30, note="private"),
        FigureRow(name="start of a driver's process until ready", value=started, unit="s", limit=1.0),
    ]  # fmt: skip


def _spec(isolation: str) -> DriverSpec:
    options = Adder.Options(driver="adder", isolation=isolation)
    environment = DriverEnvironment(
        name=isolation, topic="bench", host="node1", options=options, clock=SystemClock(),
        log=logging.LoggerAdapter(logging.getLogger("bench"), {}), kv=None,
    )  # fmt: skip
    return DriverSpec(name=isolation, cls=Adder, options=options, environment=environment)
