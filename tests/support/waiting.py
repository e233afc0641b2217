"""Waits for something that has no event to wait for, as a thread of its own or the other end of a socket brings it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Let the loop go on until a condition is true; a `TimeoutError` says that it did not become so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def wait_until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Hold this thread until a condition is true, which is asserted at the end."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.002)
    assert found, f"it did not become true in {seconds:g} s"
