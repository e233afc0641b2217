"""A copy of a table in memory, for thousands who ask for it at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ostler.errors import StoreError

T = TypeVar("T")
_LIFETIME = 0.5
"""Seconds after which somebody who asks has the table read again, without waiting for that."""
_TOO_OLD = 1.0
"""Seconds after which whoever asks waits until it was read again."""
_READ_LIMIT = 0.5
"""Seconds that reading may take before what the table said last is good enough: a change must not wait."""


class TableCopy(Generic[T]):
    """What a table says. On the loop.

    Those who ask wait for the database only after a change that they may know of, all of them for one read: else a
    thousand viewers who ask would have an administrator wait behind them.

    Args:
        read: Reads the table.
        value: What counts until it was read.
        version: Returns a number that grows with each change that somebody who asks may know of.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], value: T, version: Callable[[], int]) -> None:
        self.value = value
        self._read = read
        self._version = version
        self._of, self._at = -1, -math.inf
        """The version when it was read last, and the loop's time."""
        self._reading: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Return what the table says; while it cannot be read, what it said last."""
        now = asyncio.get_running_loop().time()
        if self._of != self._version() or now - self._at > _TOO_OLD:
            await self._read_now(now - _TOO_OLD)
        elif now - self._at > _LIFETIME and self._reading is None:
            self._begin()
        return self.value

    async def _read_now(self, since: float) -> None:
        wanted = self._version()
        try:
            async with asyncio.timeout(_READ_LIMIT):
                # A read that is under way may have begun before the change.
                while self._of < wanted or self._at < since:
                    await asyncio.shield(self._reading or self._begin())
        except TimeoutError:
            pass

    def _begin(self) -> asyncio.Task[None]:
        self._reading = asyncio.get_running_loop().create_task(self._refresh(), name="read a table")
        return self._reading

    async def _refresh(self) -> None:
        version, began = self._version(), asyncio.get_running_loop().time()
        try:
            self.value = await self._read()
        except StoreError:
            pass
        finally:
            self._reading = None
        self._of, self._at = version, began
