"""The log as a stream of batches, for callers who follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ostler.log.followers import FOLLOWERS, Filter, Follower
from ostler.manager_types import FollowedRecords

_BATCH_DELAY = 0.1
"""Seconds between the first record and its batch: what sending a batch logs itself does not come one by one."""


async def follow_log(wanted: Filter) -> AsyncGenerator[FollowedRecords, None]:
    """Yield records as they are logged, in batches, an empty one first. On the loop.

    Args:
        wanted: Which records.

    Raises:
        Busy: Too many follow already.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(ready.set)
        except RuntimeError:
            pass  # the loop is closed: the daemon ends

    follower = Follower(wanted, wake)
    FOLLOWERS.add(follower)
    try:
        yield FollowedRecords()  # from now on nothing is missed
        while True:
            await ready.wait()
            await asyncio.sleep(_BATCH_DELAY)
            ready.clear()
            yield follower.take()
    finally:
        FOLLOWERS.remove(follower)
