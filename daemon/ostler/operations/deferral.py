"""Lets writes that nobody waits for share the commit of the next one."""

from __future__ import annotations

import asyncio

DEFERRAL_TIME = 0.005
"""Seconds that such a write waits at most: a fraction of what a disk needs for a few commits."""


class Deferral:
    """Holds back writes for a moment. On the loop.

    Callers that submit one operation after the other would otherwise wait for two commits each: that of the end of
    the last one, and their own.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return when the write is to be made: with the next one, or a moment later."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if self._timer is None:
            self._timer = loop.call_later(DEFERRAL_TIME, self.release)
        await future

    def release(self) -> bool:
        """Make all of them now; return whether there was one, whose task runs in the next turn of the loop."""
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in waiting:
            if not future.done():
                future.set_result(None)
        return bool(waiting)
