"""Calls through the daemon, beside a bare echo in the same minute."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bare_echo import BareEcho
from cores import Cores, warm_cores
from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import AT_LEAST, FigureRow, median, percentile

from ostler import AsyncClient, Client

_TEXT = "x" * 32
WINDOW = 64


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Call async and sync methods, one at a time and 64 in flight, in turns with the yardstick; on both kinds."""
    rows = rows_of(figures_of(folder / "calls-idle", quick), "")
    with warm_cores() as how:
        return rows + rows_of(figures_of(folder / "calls-warm", quick), ", warm cores", how)


def figures_of(folder: Path, quick: bool) -> dict[str, float]:
    """Return the medians of all rounds, by name."""
    folder.mkdir()
    rounds, singles, many = (3, 500, 3000) if quick else (7, 2000, 15000)
    figures: dict[str, list[float]] = {}
    config = BUNDLED + ECHO.format(topic="echo")
    with Cores().apart() as cores, BareEcho(folder) as bare, DaemonUnderTest(folder / "calls", config) as daemon:
        cores.clients_from_now()
        root = str(daemon.root)
        with Client(root=root) as client:
            for method in ("echo_async", "echo_sync"):
                one_at_a_time(client, method, 200)
            for _ in range(rounds):
                note(figures, "bare", bare.one_at_a_time(singles))
                note(figures, "async", one_at_a_time(client, "echo_async", singles))
                note(figures, "sync", one_at_a_time(client, "echo_sync", singles))
        for _ in range(rounds):
            figures.setdefault("bare rate", []).append(bare.in_flight(many))
            for kind in ("async", "sync"):
                figures.setdefault(f"{kind} rate", []).append(asyncio.run(in_flight(root, f"echo_{kind}", many)))
    return {name: median(values) for name, values in figures.items()}


def one_at_a_time(client: Client, method: str, count: int) -> list[float]:
    """Call so many times, one after another; return the seconds of each."""
    clock, seconds, typed = time.perf_counter, [], client.on(type=str)
    for _ in range(count):
        began = clock()
        typed.call("echo", method, text=_TEXT)
        seconds.append(clock() - began)
    return seconds


async def in_flight(root: str, method: str, count: int) -> float:
    """Call so many times with 64 callers at once; return the rate a second."""
    async with AsyncClient(root=root) as client:
        typed = client.on(type=str)

        async def caller(times: int) -> None:
            for _ in range(times):
                await typed.call("echo", method, text=_TEXT)

        await asyncio.gather(*(caller(5) for _ in range(WINDOW)))
        began = time.perf_counter()
        await asyncio.gather(*(caller(count // WINDOW) for _ in range(WINDOW)))
        return count // WINDOW * WINDOW / (time.perf_counter() - began)


def note(figures: dict[str, list[float]], name: str, seconds: list[float]) -> None:
    """Keep the p50 and p99 of a round, in microseconds."""
    figures.setdefault(f"{name} p50", []).append(1e6 * percentile(seconds, 0.5))
    figures.setdefault(f"{name} p99", []).append(1e6 * percentile(seconds, 0.99))


def rows_of(figure: dict[str, float], where: str, how: str = "") -> list[FigureRow]:
    """Return the rows of calls on one kind of cores."""
    fast = {"unit": "us", "baseline": figure["bare p50"], "relative": True, "note": how}
    slow = {"unit": "us", "baseline": figure["bare p99"], "relative": True, "note": how}
    rate = {"unit": "calls/s", "baseline": figure["bare rate"], "sense": AT_LEAST, "relative": True, "note": how}
    one = f"one at a time{where}"
    return [
        FigureRow(name=f"call, async method, {one}, p50", value=figure["async p50"], limit=1.25, **fast),
        FigureRow(name=f"call, async method, {one}, p99", value=figure["async p99"], limit=2.0, **slow),
        FigureRow(name=f"call, sync method in the pool, {one}, p50", value=figure["sync p50"], limit=1.7, **fast),
        FigureRow(name=f"calls, async method, 64 in flight{where}", value=figure["async rate"], limit=0.40, **rate),
        FigureRow(name=f"calls, sync method, 64 in flight{where}", value=figure["sync rate"], limit=0.30, **rate),
    ]
