"""Operations: submits beside one commit each on the same disk, and how many run to their end in a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from commits import one_each
from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import AT_LEAST, AT_MOST, FigureRow, median

if TYPE_CHECKING:
    from ostler import AsyncClient

IN_FLIGHT = 64
QUEUE = """
[operations]
max_queued = 10000000
"""


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Submit for a while, one at a time and 64 at once, in turns with rows that have a commit of their own."""
    rounds, seconds = (3, 0.3) if quick else (5, 1.0)
    figures: dict[str, list[float]] = {"bare": [], "one": [], "many": [], "ended": []}
    folder = folder / "operations"
    with DaemonUnderTest(folder, BUNDLED + QUEUE + ECHO.format(topic="echo") + ECHO.format(topic="run")) as daemon:
        for number in range(rounds):
            asyncio.run(come_to_rest(daemon.root))  # the last round has left more than it could run
            figures["bare"].append(one_each(folder / f"bare{number}.db", seconds))
            figures["one"].append(asyncio.run(rate(daemon.root, 1, seconds, submit)))
            figures["many"].append(asyncio.run(rate(daemon.root, IN_FLIGHT, seconds, submit)))
            asyncio.run(come_to_rest(daemon.root))
            figures["ended"].append(asyncio.run(rate(daemon.root, IN_FLIGHT, seconds, run)))
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


async def submit(client: AsyncClient) -> None:
    """Submit an operation that does nothing."""
    await client.submit("echo", "nothing")


async def run(client: AsyncClient) -> None:
    """Have an operation that does nothing run to its end.

    On a topic of its own: on that of the submits, those would be before it in the queue.
    """
    await client.call("run", "nothing")


async def come_to_rest(root: Path) -> None:
    """Wait until all that was submitted has ended."""
    from ostler import AsyncClient

    async with AsyncClient(root=str(root)) as client:
        while await client.call("ostler", "operation.list", states=["queued", "running", "waiting"], limit=1):
            await asyncio.sleep(0.05)


async def rate(root: Path, callers: int, seconds: float, ask: Callable[[AsyncClient], Awaitable[None]]) -> float:
    """Have some callers ask again and again; return how often they were answered in a second."""
    from ostler import AsyncClient

    answered = 0
    ends = time.perf_counter() + seconds

    async def caller(client: AsyncClient) -> None:
        nonlocal answered
        while time.perf_counter() < ends:
            await ask(client)
            answered += 1

    async with AsyncClient(root=str(root)) as client:
        began = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(callers)))
        return answered / (time.perf_counter() - began)
