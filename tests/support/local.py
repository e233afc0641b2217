"""A service that is called in its own process, without a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.messaging import Access, Dispatcher, Endpoint


@asynccontextmanager
async def dispatching(topic: str, target: object, inbox: LoopQueue) -> AsyncIterator[Dispatcher]:
    """Serve one topic with two threads, which have ended at the end."""
    dispatcher = Dispatcher(Access(), SystemClock(), inbox, host="here")
    pool = WorkerPool(topic, 2)
    dispatcher.registry.add_endpoint(Endpoint(topic, "here", target, pool))
    try:
        yield dispatcher
    finally:
        dispatcher.close()
        pool.close()
        assert await asyncio.to_thread(pool.join, 5) == []
