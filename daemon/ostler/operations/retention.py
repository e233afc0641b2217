"""Removes operations that ended long ago."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.operations.operation_queue import OperationLimits
from ostler.store import OperationRecords, Store

_log = logging.getLogger(__name__)
_PRUNE_INTERVAL = 60.0


class OperationRetention:
    """Removes ended operations above the limits, and those that an operator does not want any more. On the loop.

    Args:
        store: Where they are stored.
        records: The table.
        clock: The source of time.
        limits: Returns what is kept.
    """

    def __init__(
        self, store: Store, records: OperationRecords, clock: Clock, limits: Callable[[], OperationLimits]
    ) -> None:
        self._store = store
        self._records = records
        self._clock = clock
        self._limits = limits

    async def run(self) -> None:
        """Remove what is above the limits, periodically and for ever."""
        while True:
            await asyncio.sleep(_PRUNE_INTERVAL)
            try:
                await self.trim()
            except StoreError as error:
                _log.debug("ended operations were not removed: %s", error)

    async def prune(self, keep: int, age: float) -> int:
        """Remove operations that ended more than `age` seconds ago, except the newest `keep`; return how many."""
        before = self._clock.wall() - age
        return await self._remove(partial(self._records.prune, keep, before))

    async def trim(self) -> int:
        """Remove ended operations above the limits; return how many."""
        ages, limits = self._store.retention_clock, self._limits()
        return await self._remove(partial(self._records.trim, limits.max_ended, ages.now() - limits.max_age, ages))

    async def _remove(self, remove_batch: Callable[[], int]) -> int:
        removed = 0
        while batch := await self._store.awrite(remove_batch, label="prune operations"):
            removed += batch
        return removed
