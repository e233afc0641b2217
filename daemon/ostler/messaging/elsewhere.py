"""Requests of managers for services on other hosts, from threads and on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler.aio import Inbox, waiting_for
from ostler.errors import DeadlineExceeded, is_expected
from ostler.messaging.async_item_stream import AsyncItemStream
from ostler.messaging.context import current_context
from ostler.messaging.item_stream import ItemStream
from ostler.messaging.local import not_on_a_loop
from ostler.messaging.rpc.core import Ask, allowed

if TYPE_CHECKING:
    from ostler.messaging.routing import Router

_GRACE = 2.0
"""Real seconds beyond its time after which a waiting thread helps itself: a loop that hangs must not hold it."""


def from_thread(inbox: Inbox, work: Coroutine[Any, Any, Any], limit: float | None, where: str) -> Any:
    """Have the loop do some work, and wait for it on a thread.

    The work sees the request that is served on this thread: its deadline, its trace, and its end.

    Args:
        inbox: The loop's.
        work: The work.
        limit: Seconds after which it ends by itself; None for no limit.
        where: `topic.method`, for messages.

    Raises:
        DeadlineExceeded: The loop did not come to it.
        Exception: What the work raised.
    """
    future = asyncio.run_coroutine_threadsafe(work, inbox.loop)
    try:
        with waiting_for(where):
            return future.result(None if limit is None else limit + _GRACE)
    except TimeoutError as error:
        if is_expected(error) or future.done():
            raise
        text = f"no answer from {where} in time, not even that it is late: the daemon's loop hangs"
        raise DeadlineExceeded(text, hint="see `ostler dump`", method=where) from None
    finally:
        future.cancel()


def stream_from_thread(router: Router, inbox: Inbox, ask: Ask, credit: int) -> ItemStream:
    """Return what a method on another host yields, for a thread.

    Args:
        router: Knows the other hosts.
        inbox: The loop's.
        ask: What is asked.
        credit: The most items that are on their way or wait for the reader.
    """
    return ItemStream(_Source(router, inbox, ask, credit))


class _Source:
    """A stream of another host that is read on a thread; see `Source`.

    Nothing is read ahead: what the loop takes from the link is what the reader asks for, so that the credit that the
    other host has is that of this reader.
    """

    def __init__(self, router: Router, inbox: Inbox, ask: Ask, credit: int) -> None:
        self._router = router
        self._inbox = inbox
        self._ask = ask
        self._credit = credit
        self._where = f"{ask.topic}.{ask.method}"

    def open(self) -> AsyncItemStream:
        not_on_a_loop(self._ask, "`astream`")
        stream: AsyncItemStream = self._wait(self._open())
        return stream

    def take(self, stream: AsyncItemStream) -> list[Any] | None:
        found: list[Any] | None = self._wait(stream.batch())
        return found

    def close(self, stream: AsyncItemStream) -> None:
        self._inbox.post(partial(stream.close))

    async def _open(self) -> AsyncItemStream:
        return await self._router.stream(await self._router.reach(self._ask), self._credit).__aenter__()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            limit = allowed(current_context(), self._ask.timeout, None)
        except BaseException:
            work.close()
            raise
        return from_thread(self._inbox, work, limit, self._where)
