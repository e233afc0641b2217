"""Ostler itself, as a user gets it: the real daemon, `Client` one at a time, `AsyncClient` in flight, its events."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from peer import (
    BURST,
    SUBSCRIBERS,
    TEXT,
    MeasuredPeer,
    Tally,
    aconverse,
    agather,
    each,
    main,
    ready,
    wait_for_the_end,
)

_ROOT = "ostler"
_DAEMON = """
[daemon]
host = "bench"
"""


def _serve(folder: Path, address: str) -> None:
    # The daemon under test stands with the other benchmarks.
    sys.path.append(str(Path(__file__).parents[1]))
    from fuzzed_service import ECHO, DaemonUnderTest

    with DaemonUnderTest(folder / _ROOT, _DAEMON + ECHO.format(topic="echo")):
        ready()
        wait_for_the_end()


def _asker(method: str):
    def ask(folder: Path, address: str) -> None:
        asyncio.run(_ask(str(folder / _ROOT), method))

    return ask


async def _ask(root: str, method: str) -> None:
    from ostler import AsyncClient, Client

    tally = Tally()
    async with AsyncClient(root=root) as aclient:
        with Client(root=root) as client:
            streams = [await aclient.events("echo.bench.tick") for _ in range(SUBSCRIBERS)]
            listeners = [asyncio.create_task(_listen(stream, tally)) for stream in streams]
            call, acall = client.on(type=str).call, aclient.on(type=str).call
            await aconverse(
                {
                    "call": lambda count: each(lambda: call("echo", method, text=TEXT), count),
                    "flight": lambda count: agather(lambda: acall("echo", method, text=TEXT), count),
                    "events": lambda count: tally.adeliveries(
                        lambda n: aclient.cast("echo", "publish_burst", count=n), count
                    ),
                }
            )
            for listener in listeners:
                listener.cancel()


async def _listen(stream, tally: Tally) -> None:
    async for _ in stream:
        tally.count()


_HOW = "unix socket; typed, authorised, counted; no broker"
PEERS = [
    MeasuredPeer(
        name="Ostler", distribution="ostler", serve=_serve, ask=_asker("echo_async"), events=BURST, own=True,
        settings=f"async method; {_HOW}",
    ),
    MeasuredPeer(
        name="Ostler, sync method", distribution="ostler", serve=_serve, ask=_asker("echo_sync"), own=True,
        settings=f"method in the pool of threads; {_HOW}",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main(PEERS)
