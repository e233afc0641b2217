"""A copy of a table in memory, for thousands of concurrent callers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ostler.errors import StoreError

T = TypeVar("T")
_REFRESH_AGE = 0.5
"""Seconds after which a caller triggers another read, without waiting for it."""
_MAX_AGE = 1.0
"""Seconds after which a caller waits for another read."""
_READ_TIMEOUT = 0.5
"""Seconds that a read may take before the last content is returned: a change must not wait."""


class TableCache(Generic[T]):
    """The content of a table. On the loop.

    Callers wait for the database only after a change that they may know of, and all of them for one read: otherwise an
    administrator would wait behind a thousand viewers.

    Args:
        read: Reads the table.
        value: The content until the first read.
        current_version: Returns a number that grows with each change that a caller may know of.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], value: T, current_version: Callable[[], int]) -> None:
        self.value = value
        self._read = read
        self._current_version = current_version
        self._cached_version, self._cached_at = -1, -math.inf
        """The version at the last read, and the loop's time."""
        self._read_task: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Return the content; while the table cannot be read, the last known content."""
        now = asyncio.get_running_loop().time()
        if self._cached_version != self._current_version() or now - self._cached_at > _MAX_AGE:
            await self._read_now(now - _MAX_AGE)
        elif now - self._cached_at > _REFRESH_AGE and self._read_task is None:
            self._start_read()
        return self.value

    async def _read_now(self, since: float) -> None:
        wanted = self._current_version()
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                # A read in progress may have started before the change.
                while self._cached_version < wanted or self._cached_at < since:
                    await asyncio.shield(self._read_task or self._start_read())
        except TimeoutError:
            pass

    def _start_read(self) -> asyncio.Task[None]:
        self._read_task = asyncio.get_running_loop().create_task(self._refresh(), name="read a table")
        return self._read_task

    async def _refresh(self) -> None:
        version, began = self._current_version(), asyncio.get_running_loop().time()
        try:
            self.value = await self._read()
        except StoreError:
            pass
        finally:
            self._read_task = None
        self._cached_version, self._cached_at = version, began
