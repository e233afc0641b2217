"""Operations: submits beside one commit each on the same disk, and how many run to their end in a second."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from commits import one_each
from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import AT_LEAST, AT_MOST, FigureRow, median

IN_FLIGHT = 64


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Submit for a while, one at a time and 64 at once, in turns with rows that have a commit of their own."""
    rounds, seconds = (3, 0.3) if quick else (5, 1.0)
    figures: dict[str, list[float]] = {"bare": [], "one": [], "many": [], "ended": []}
    folder = folder / "operations"
    with DaemonUnderTest(folder, BUNDLED + ECHO.format(topic="echo") + ECHO.format(topic="run")) as daemon:
        for number in range(rounds):
            figures["bare"].append(one_each(folder / f"bare{number}.db", seconds))
            figures["one"].append(asyncio.run(submit(daemon.root, 1, seconds)))
            figures["many"].append(asyncio.run(submit(daemon.root, IN_FLIGHT, seconds)))
            figures["ended"].append(asyncio.run(run(daemon.root, seconds)))
    bare = median(figures["bare"])
    return [
        FigureRow(
            name="submit, one at a time", value=1e6 / median(figures["one"]), unit="us", baseline=1e6 / bare,
            limit=1.3, sense=AT_MOST, relative=True, binding=False,
        ),
        FigureRow(
            name="submits, 64 in flight, FULL", value=median(figures["many"]), unit="submits/s", baseline=bare,
            limit=20,
            sense=AT_LEAST, relative=True, binding=False,
        ),
        FigureRow(
            name="operations, 64 in flight, from submit to result", value=median(figures["ended"]), unit="operations/s",
            baseline=bare,
        ),
    ]  # fmt: skip


async def submit(root: Path, callers: int, seconds: float) -> float:
    """Submit operations that do nothing; return how many were accepted in a second."""
    from ostler import AsyncClient

    accepted = 0
    ends = time.perf_counter() + seconds

    async def caller(client: AsyncClient) -> None:
        nonlocal accepted
        while time.perf_counter() < ends:
            await client.submit("echo", "nothing")
            accepted += 1

    async with AsyncClient(root=str(root)) as client:
        began = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(callers)))
        return accepted / (time.perf_counter() - began)


async def run(root: Path, seconds: float) -> float:
    """Call a durable method that does nothing with 64 callers; return how many operations ended in a second.

    On a topic of its own: on that of the submits, those would be before them in the queue.
    """
    from ostler import AsyncClient

    ended = 0
    ends = time.perf_counter() + seconds

    async def caller(client: AsyncClient) -> None:
        nonlocal ended
        while time.perf_counter() < ends:
            await client.call("run", "nothing")
            ended += 1

    async with AsyncClient(root=str(root)) as client:
        began = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(IN_FLIGHT)))
        return ended / (time.perf_counter() - began)
