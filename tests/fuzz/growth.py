"""`make growth`: a million calls through the real daemon, of every kind; it does not grow.

In flight are 64 at a time: on the loop, in the pool, streams, refused ones, with connections that come and go. After a
tenth of them everything is warm; what the daemon has then, it must still have at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "functional"))

from daemon_process import DaemonProcess

from ostler import AsyncClient, OstlerError

CONFIG = """
[services.echo]
manager = "faulty_managers:EchoManager"
"""
MARGIN = 4 * 2**20
"""Bytes of memory that the daemon may have more of at the end."""
_IN_FLIGHT = 64
_POOL = 8
"""Threads that the pool of a service may have: how many it has started depends on how calls happened to meet."""


class Size(NamedTuple):
    """Memory in bytes, open files and threads of a process."""

    memory: int
    files: int
    threads: int


def size(pid: int) -> Size:
    """Return how large a process is now."""
    place = Path(f"/proc/{pid}")
    pages = int((place / "statm").read_text(encoding="ascii").split()[1])
    return Size(
        pages * os.sysconf("SC_PAGE_SIZE"), len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))
    )


class Load:
    """Makes calls of all kinds.

    Args:
        root: The daemon's.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.made = self.refused = self.missing = self.items = self.connects = 0
        self._left = 0

    async def run(self, calls: int) -> None:
        """Make so many calls, 64 at a time."""
        self._left = calls
        async with AsyncClient(root=self._root) as client:
            await asyncio.gather(*(self._caller(client) for _ in range(_IN_FLIGHT)))

    async def _caller(self, client: AsyncClient) -> None:
        while self._left > 0:
            self._left -= 1
            self.made += 1
            await self._one(client, self.made)

    async def _one(self, client: AsyncClient, number: int) -> None:
        if number % 100 == 1:
            self.refused += await _fails(client.call("echo", "echo_async", text=5))
        elif number % 100 == 2:
            self.missing += await _fails(client.call("echo", "nothing"))
        elif number % 10 == 3:
            await client.call("echo", "echo", text="in the pool")
        elif number % 500 == 4:
            await self._read(client)
        elif number % 1000 == 5:
            await self._come_and_go()
        else:
            await client.call("echo", "echo_async", text="on the loop")

    async def _read(self, client: AsyncClient) -> None:
        async with client.stream("echo", "ticks", spacing=0.0) as stream:
            async for number in stream:
                self.items += 1
                if number >= 20:
                    break

    async def _come_and_go(self) -> None:
        async with AsyncClient(root=self._root) as other:
            await other.call("echo", "echo_async", text="once")
        self.connects += 1


async def _fails(call: Any) -> int:
    try:
        await call
    except OstlerError:
        return 1
    raise AssertionError("it was not refused")


def grow(calls: int) -> tuple[Size, Size, Load, float]:
    """Make so many calls after a tenth of them; return sizes before and after, what was done, and the seconds."""
    daemon = DaemonProcess(CONFIG).start()
    try:
        load = Load(str(daemon.root))
        asyncio.run(load.run(calls // 10))
        before, began = size(daemon.running.pid), time.monotonic()
        asyncio.run(load.run(calls))
        seconds = time.monotonic() - began
        after = size(daemon.running.pid)
        if "Traceback" in daemon.log:
            raise AssertionError("there is a traceback in the daemon's log")
    finally:
        daemon.close()
    return before, after, load, seconds


def has_grown(before: Size, after: Size) -> bool:
    """Return whether a daemon is larger than it was; a few threads more may still be those of its pool."""
    return (
        after.memory - before.memory > MARGIN
        or after.files > before.files + 2
        or after.threads > before.threads + _POOL
    )


def main(arguments: list[str] | None = None) -> int:
    """Make the calls, and say what came of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many; a million by default")
    before, after, load, seconds = grow(parser.parse_args(arguments).calls)
    print(f"{load.made:,} calls in {seconds:.0f} s: {load.refused:,} refused, {load.missing:,} to a method that is not")
    print(f"there, {load.items:,} items of streams, {load.connects:,} connections that came and went")
    print(f"{'':10}{'before':>10}{'after':>10}")
    print(f"{'memory':10}{before.memory / 2**20:8.1f}Mi{after.memory / 2**20:8.1f}Mi")
    print(f"{'files':10}{before.files:10}{after.files:10}\n{'threads':10}{before.threads:10}{after.threads:10}")
    grown = has_grown(before, after)
    print("it has grown" if grown else "it has not grown")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
