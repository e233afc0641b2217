"""Calls by the gateway from a loop of its own, beside the bare way there and back between two loops."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from rows import AT_LEAST, FigureRow, median

IN_FLIGHT = 64
CONFIG = """
[services.echo]
manager = "bench_managers:EchoManager"
"""


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Call from a second loop of a process, in turns with the yardstick."""
    from ostler.testing import host

    rounds, count = (3, 500) if quick else (9, 3000)
    bare: list[float] = []
    single: list[float] = []
    rates: list[float] = []
    with host(config=CONFIG, state=folder / "gateway") as made:
        client = made.gateway.client(made.caller("operator"))

        async def run() -> None:
            await one_at_a_time(client, count)
            for _ in range(rounds):
                bare.append(await ping_pong(count))
                single.append(await one_at_a_time(client, count))
                rates.append(await side_by_side(client, count))

        asyncio.run(run())
    return [
        FigureRow(
            name="call by the gateway, one at a time", value=median(single) * 1e6, unit="us",
            baseline=median(bare) * 1e6, limit=4.0, relative=True, binding=False,
        ),
        FigureRow(
            name="calls by the gateway, 64 in flight", value=median(rates), unit="calls/s",
            limit=20_000, sense=AT_LEAST, binding=False,
        ),
    ]  # fmt: skip


async def ping_pong(count: int) -> float:
    """Return the seconds for the way to another loop and back, which does nothing."""
    other, here = asyncio.new_event_loop(), asyncio.get_running_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    began = time.perf_counter()
    for _ in range(count):
        back = here.create_future()
        other.call_soon_threadsafe(here.call_soon_threadsafe, back.set_result, None)
        await back
    seconds = (time.perf_counter() - began) / count
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()
    return seconds


async def one_at_a_time(client: Any, count: int) -> float:
    """Return the seconds for a call."""
    began = time.perf_counter()
    for _ in range(count):
        await client.call("echo", "echo_async", {"text": "x" * 64})
    return (time.perf_counter() - began) / count


async def side_by_side(client: Any, count: int) -> float:
    """Return the calls a second."""
    began = time.perf_counter()
    await asyncio.gather(*(one_at_a_time(client, count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    return count // IN_FLIGHT * IN_FLIGHT / (time.perf_counter() - began)
