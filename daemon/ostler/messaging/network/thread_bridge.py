"""Sends requests of managers to services on other hosts, from threads and on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler.aio import LoopQueue, waiting_for
from ostler.errors import DeadlineExceeded, is_expected
from ostler.messaging.clients.async_item_stream import AsyncItemStream
from ostler.messaging.clients.client_core import effective_timeout
from ostler.messaging.clients.local_client import raise_if_on_loop
from ostler.messaging.clients.sync_item_stream import ItemStream
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import current_context

if TYPE_CHECKING:
    from ostler.messaging.network.routing import Router

_DEADLINE_GRACE = 2.0
"""Real seconds beyond its time after which a waiting thread gives up: a loop that hangs must not block it."""


def run_from_thread(
    loop_queue: LoopQueue, work: Coroutine[Any, Any, Any], timeout: float | None, full_name: str
) -> Any:
    """Run some work on the loop, and wait for it on a thread.

    The work sees the request that is served on this thread: its deadline, its trace, and its end.

    Args:
        loop_queue: The loop's.
        work: The work.
        timeout: Seconds after which it ends by itself; None for no limit.
        full_name: `topic.method`, for messages.

    Raises:
        DeadlineExceeded: The loop did not run it in time.
        Exception: What the work raised.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop_queue.loop)
    try:
        with waiting_for(full_name):
            return future.result(None if timeout is None else timeout + _DEADLINE_GRACE)
    except TimeoutError as error:
        if is_expected(error) or future.done():
            raise
        text = f"no answer from {full_name} in time, not even a timeout error: the daemon's event loop is blocked"
        raise DeadlineExceeded(text, hint="see `ostler dump`", method=full_name) from None
    finally:
        future.cancel()


def stream_from_thread(router: Router, loop_queue: LoopQueue, request: CallRequest, credit: int) -> ItemStream:
    """Return what a method on another host yields, for a thread.

    Args:
        router: Knows the other hosts.
        loop_queue: The loop's.
        request: What is asked.
        credit: The most items that are on their way or wait for the reader.
    """
    return ItemStream(_RemoteStreamSource(router, loop_queue, request, credit))


class _RemoteStreamSource:
    """A stream of another host that is read on a thread; see `StreamSource`.

    Nothing is read ahead: what the loop takes from the link is what the reader asks for, so that the credit that the
    other host has is that of this reader.
    """

    def __init__(self, router: Router, loop_queue: LoopQueue, request: CallRequest, credit: int) -> None:
        self._router = router
        self._loop_queue = loop_queue
        self._request = request
        self._credit = credit
        self._full_name = f"{request.topic}.{request.method}"

    def open(self) -> AsyncItemStream:
        raise_if_on_loop(self._request, "`astream`")
        stream: AsyncItemStream = self._wait(self._open())
        return stream

    def take(self, stream: AsyncItemStream) -> list[Any] | None:
        found: list[Any] | None = self._wait(stream.batch())
        return found

    def close(self, stream: AsyncItemStream) -> None:
        self._loop_queue.post(partial(stream.close))

    async def _open(self) -> AsyncItemStream:
        return await self._router.open_stream(
            await self._router.wait_reachable(self._request), self._credit
        ).__aenter__()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            limit = effective_timeout(current_context(), self._request.timeout, None)
        except BaseException:
            work.close()
            raise
        return run_from_thread(self._loop_queue, work, limit, self._full_name)
