"""An honest user: asks at fixed moments, whether the question before was answered or not, and measures each answer.

    python probe.py UID ROOT admin|viewer|bystander   until the end of stdin; then writes what it measured to stdout

An answer that takes long therefore does not hide those that would have taken long after it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from attackers import become

from ostler import AsyncClient, Client

_CALL_TIMEOUT = 20.0
_SPACINGS = {
    "admin": {"echo": 0.01, "fresh": 0.1, "status": 0.1},
    "viewer": {"echo": 0.02, "service": 0.05},
    "bystander": {"echo": 0.02, "fresh": 0.1},
}
"""Seconds between two questions of a kind."""


class HonestClient:
    """Asks and measures.

    Args:
        root: The daemon's.
        role: What it asks, see `_SPACINGS`.
    """

    def __init__(self, root: str, role: str) -> None:
        self._root = root
        self._role = role
        self.client = AsyncClient(root=root, timeout=_CALL_TIMEOUT)
        self.samples: list[tuple[str, float, float, str]] = []
        """Kind, when it was asked, seconds until the answer, and the error if that was one."""

    async def warm_up(self) -> None:
        """Ask each question once; errors are raised."""
        for kind in _SPACINGS[self._role]:
            await getattr(self, "_" + kind)()

    async def run(self, over: asyncio.Event) -> None:
        """Ask until it is over, and wait for what is under way."""
        await asyncio.gather(*(self._call_repeatedly(kind, over) for kind in _SPACINGS[self._role]))

    async def _call_repeatedly(self, kind: str, over: asyncio.Event) -> None:
        asked: set[asyncio.Task[None]] = set()
        at, spacing = time.monotonic(), _SPACINGS[self._role][kind]
        how: Callable[[], Awaitable[Any]] = getattr(self, "_" + kind)
        while not over.is_set():
            task = asyncio.create_task(self._measure(kind, how, at))
            asked.add(task)
            task.add_done_callback(asked.discard)
            at += spacing
            if (left := at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            else:
                at = time.monotonic()  # it was this process that had no processor: nothing is said of the daemon
        if asked:
            await asyncio.wait(asked)

    async def _measure(self, kind: str, ask: Callable[[], Awaitable[Any]], at: float) -> None:
        error, at = "", max(at, time.monotonic() - 0.001)
        try:
            await asyncio.wait_for(ask(), _CALL_TIMEOUT)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
        self.samples.append((kind, at, time.monotonic() - at, error))

    async def _echo(self) -> None:
        await self.client.call("ostler", "echo", text="x")

    async def _status(self) -> None:
        await self.client.call("ostler", "status")

    async def _service(self) -> None:
        await self.client.call("target", "echo", text="x")

    async def _fresh(self) -> None:
        await asyncio.to_thread(self._connect_and_ask)  # as the command `ostler` does

    def _connect_and_ask(self) -> None:
        with Client(root=self._root, timeout=_CALL_TIMEOUT) as client:
            client.call("ostler", "echo", text="x")


async def import_all() -> None:
    """Ask each question once as root: what is imported on the way may lie where other users cannot read."""
    for role in _SPACINGS:
        probe = HonestClient(sys.argv[2], role)
        async with probe.client:
            await probe.warm_up()


async def main() -> None:
    """Probe as the arguments say."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), over.set)
    probe = HonestClient(sys.argv[2], sys.argv[3])
    async with probe.client:
        await probe.warm_up()
        print("up", flush=True)
        await probe.run(over)
    print(json.dumps(probe.samples), flush=True)


if __name__ == "__main__":
    asyncio.run(import_all())
    become(int(sys.argv[1]))
    asyncio.run(main())
