"""The server's end of streams: methods that yield, with flow control by credit.

Each item is encoded when it is yielded (a generator may yield one object again and again, and change it in between), on
the thread that made it. What is ready goes out together at the end of the loop's turn, so that the first item waits for
nothing and a fast generator fills whole frames. A stream makes no item for which the caller has given no credit, and
none while too many bytes are on their way: a slow reader holds up its own stream, and no thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Hashable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from ostler.aio import LoopQueue
from ostler.aio.round_robin import HIGH_RANK, NORMAL_RANK, SLICE_TIME, DeficitRoundRobin
from ostler.clock import Clock
from ostler.errors import OWN_SHARE, Busy, Draining, OstlerError, WrongCallKind, error_line
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT, MAX_BATCH_ITEMS, RETRY, STREAM
from ostler.messaging.wire.request_context import set_current_context
from ostler.types import LOCAL_PEER, Role

_log = logging.getLogger(__name__)

_MAX_CREDIT = 65_536
"""The most items that one stream may have on their way, whatever its caller says."""
_MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""No item is made while so many bytes are on their way to the caller."""
_MAX_ITEMS_AHEAD, _MAX_BYTES_AHEAD = 768, 256 * 1024
"""Items and bytes that a thread makes ahead of the loop, which alone can tell whether there is room for them."""
_MAX_BATCH_BYTES = 64 * 1024
"""A message of several items is about so large, at most."""
_CONGESTION_POLL_INTERVAL = 0.1
"""Seconds until a stream looks again whether its caller has read what waits for it."""
_THREAD_SLICE = 0.005
"""Seconds for which a generator has a thread of the pool, when it never waits."""
_POOL_RETRY_DELAY = 0.05
"""Seconds until a full pool is asked again to go on with a generator."""


class StreamHost(Protocol):
    """What runs streams: a dispatcher."""

    inbox: LoopQueue
    clock: Clock

    def register(self, call: Call) -> None:
        """Count a call as in progress, until it has ended."""
        ...

    def pool_ended(self, call: Call, packed: bytes | None, error: BaseException | None) -> None:
        """Answer a call whose work in a thread has ended, with its result or the error."""
        ...

    def begin_async(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine for a call, and answer with what it returns."""
        ...

    def sweep_by(self, deadline: float) -> None:
        """Make sure that deadlines are checked at this moment of the clock."""
        ...


class ServerStreams:
    """The open streams of a dispatcher. On the loop's thread only.

    Args:
        host: The dispatcher.
        turns: Shares the loop's time among them, and other things of their callers.
    """

    def __init__(self, host: StreamHost, turns: DeficitRoundRobin) -> None:
        self.opened = 0
        self._host = host
        self._turns = turns
        self._open: dict[Call, ServerStream] = {}
        self._by_account: Counter[Hashable] = Counter()

    @property
    def open_count(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def rows(self) -> list[dict[str, Any]]:
        """Return the open streams for a dump: how many items were made, sent, and are allowed."""
        return [
            {"method": call.full_name, "to": call.peer.name, **stream.counts()} for call, stream in self._open.items()
        ]

    def start(self, call: Call, generator: Any, limit: int, account_limit: int) -> None:
        """Run a generator for a call, if there are not too many already: in all, and of one uid or key.

        Raises:
            Busy: Too many streams are open, or the queue of the pool is full.
        """
        account = call.account
        if account != LOCAL_PEER.account and self._by_account[account] >= account_limit:
            raise _too_many_error(call.peer.name, account_limit, OWN_SHARE)
        if len(self._open) >= limit:
            raise _too_many_error("this daemon", limit)
        on_loop = hasattr(generator, "__anext__")
        kind = AsyncServerStream if on_loop else SyncServerStream
        stream: ServerStream = kind(call, generator, self._host, self._turns, self._remove)
        self._open[call] = stream
        self._by_account[account] += 1
        self.opened += 1
        try:
            stream.start()
        except BaseException:
            self._remove(call)
            raise

    def add_credit(self, call: Call, items: int) -> bool:
        """Let a stream make so many items more; return False when the call has none open."""
        stream = self._open.get(call)
        if stream is None:
            return False
        stream.add_credit(items)
        return True

    def resume(self, client: object) -> None:
        """Go on with the streams of a connection for which nothing waits any more."""
        for call, stream in list(self._open.items()):
            if call.client == client:
                stream.resume()

    def drain(self, topic: str, reason: str, cancel: Callable[[Call, OstlerError], None]) -> None:
        """End the streams of a topic."""
        for call in [call for call in self._open if call.request.topic == topic]:
            cancel(call, Draining(f"{call.full_name} was stopped: {reason}", topic=topic, why=reason))

    def _remove(self, call: Call) -> None:
        if self._open.pop(call, None) is None:
            return
        account = call.account
        self._by_account[account] -= 1
        if not self._by_account[account]:
            del self._by_account[account]


def check_call_kind(call: Call) -> None:
    """Refuse a call of a method that yields, and a stream of one that does not.

    Raises:
        WrongCallKind: It is asked for in the wrong way; says in which it can be.
    """
    if not call.method.signature.is_streaming:
        what, hint = "does not yield, and cannot be streamed", "use `client.call(…)`"
    elif not call.request.flags & STREAM:
        what, hint = "yields, and cannot be called or cast", "use `for item in client.stream(…)`"
    elif call.request.flags & (CAST | FANOUT | RETRY):
        what, hint = "yields, and cannot be cast or retried", "use `for item in client.stream(…)`"
    else:
        return
    raise WrongCallKind(
        f"{call.full_name} {what}", hint=hint, method=call.full_name, streams=call.method.signature.is_streaming
    )


def _too_many_error(who: str, limit: int, reason: str = "") -> Busy:
    return Busy(
        f"{who} has {limit} open streams, which is the limit",
        hint="close some of them", retry_after=1.0, limit=limit, reason=reason,
    )  # fmt: skip


class ServerStream:
    """One open stream; subclasses know where its generator runs.

    Counters that one thread writes and another one reads need no lock: what was granted is written on the loop, what
    was made where the generator runs.
    """

    def __init__(
        self,
        call: Call,
        generator: Any,
        host: StreamHost,
        turns: DeficitRoundRobin,
        on_closed: Callable[[Call], None],
    ) -> None:
        self.call = call
        self.account: Hashable = call.peer.account
        self.rank = HIGH_RANK if call.context.role is Role.ADMIN else NORMAL_RANK
        self._generator = generator
        self._host = host
        self._turns = turns
        self._on_closed = on_closed
        self._granted = min(call.request.credit, _MAX_CREDIT)
        self._batch = max(1, min(MAX_BATCH_ITEMS, self._granted // 4))
        self._produced = 0
        self._bytes_produced = 0
        self._bytes_read = 0
        self._flushed = self._bytes_flushed = 0
        self._sent = 0
        self._read = 0
        self._is_congested = False
        self._congestion_timer: asyncio.TimerHandle | None = None
        self._ready: deque[bytes] = deque()
        self._unread: deque[tuple[int, int]] = deque()

    def start(self) -> None:
        """Begin to make items."""
        raise NotImplementedError

    def run(self, until: float) -> bool:
        """Work in a turn of the caller's account; see `Flow`."""
        raise NotImplementedError

    def add_credit(self, items: int) -> None:
        """Take credit: the caller has taken so many items, and wants as many more."""
        self._granted = min(self._granted + items, self._sent + _MAX_CREDIT)
        # One that began without credit sends no single items indefinitely.
        self._batch = max(self._batch, min(MAX_BATCH_ITEMS, (self._granted - self._sent) // 4))
        self._read += items
        while self._unread and self._unread[0][0] <= self._read:
            self._bytes_read += self._unread.popleft()[1]

    @property
    def _can_produce(self) -> bool:
        """Whether another item may be made."""
        made = self._bytes_produced
        return (
            self._produced < self._granted
            and self._produced - self._flushed < _MAX_ITEMS_AHEAD
            and made - self._bytes_flushed < _MAX_BYTES_AHEAD
            and made - self._bytes_read < _MAX_UNREAD_BYTES
            and not self._is_congested
        )

    def counts(self) -> dict[str, Any]:
        """Return how far it is. Any thread."""
        return {
            "produced": self._produced, "sent": self._sent, "granted": self._granted, "congested": self._is_congested
        }  # fmt: skip

    def resume(self) -> None:
        """Go on, if not too much waits for the caller any more."""
        if self._congestion_timer is not None:
            self._congestion_timer.cancel()
            self._congestion_timer = None
        if self._is_congested:
            self._check_congestion()
            self.add_credit(0)

    def _check_congestion(self) -> None:
        """Find out whether too much waits for the caller; if so, look again later. On the loop."""
        self._is_congested = self.call.is_congested
        if self._is_congested and self._congestion_timer is None:
            self._congestion_timer = asyncio.get_running_loop().call_later(_CONGESTION_POLL_INTERVAL, self.resume)

    def _release(self) -> None:
        """Release the stream, which has ended. On the loop."""
        self._turns.remove(self)
        self._is_congested = False
        if self._congestion_timer is not None:
            self._congestion_timer.cancel()
            self._congestion_timer = None
        self._on_closed(self.call)

    def _pack(self, item: object) -> bytes:
        """Encode one item, and count it."""
        packed = self.call.pack_item(item, self._produced)
        self._produced += 1
        self._bytes_produced += len(packed)
        return packed

    def _flush(self) -> None:
        """Send what is ready. On the loop."""
        ready = self._ready
        if not ready:
            return
        take = ready.popleft
        items = [take() for _ in range(len(ready))]
        size = sum(map(len, items))
        self._flushed += len(items)
        self._bytes_flushed += size
        if self.call.is_answered:
            return
        if size <= _MAX_BATCH_BYTES:
            for begin in range(0, len(items), self._batch):
                part = items[begin : begin + self._batch]
                self._send(part, sum(map(len, part)))
        else:
            self._send_large(items)
        self._check_congestion()
        self._set_item_deadline(self.call.request.timeout)

    def _send_large(self, items: list[bytes]) -> None:
        """Send items that are too many bytes for one message."""
        begin = size = 0
        for end, item in enumerate(items):
            if end > begin and (end - begin >= self._batch or size + len(item) > _MAX_BATCH_BYTES):
                self._send(items[begin:end], size)
                begin, size = end, 0
            size += len(item)
        self._send(items[begin:], size)

    def _send(self, items: list[bytes], size: int) -> None:
        first, self._sent = self._sent, self._sent + len(items)
        self._unread.append((self._sent, size))
        self.call.send_items(first, items)

    def _set_item_deadline(self, timeout: float | None) -> None:
        """Say until when the next item has to come; None while the caller is the one who is waited for."""
        if timeout is None:
            self.call.context.deadline = None
        else:
            self.call.context.deadline = deadline = self._host.clock.monotonic() + timeout
            self._host.sweep_by(deadline)


class AsyncServerStream(ServerStream):
    """A stream of an `async def` that yields."""

    _generator: AsyncGenerator[Any, None]

    def start(self) -> None:
        """See `ServerStream.begin`."""
        self._is_flush_posted = False
        self._credit_waiter: asyncio.Future[None] | None = None
        self._turn_waiter: asyncio.Future[None] | None = None
        self._slice_end = 0.0
        self._host.begin_async(self.call, self._run())

    def add_credit(self, items: int) -> None:
        """See `ServerStream.grant`."""
        super().add_credit(items)
        if self._credit_waiter is not None and not self._credit_waiter.done():
            self._credit_waiter.set_result(None)

    async def _run(self) -> None:
        call, ready, loop = self.call, self._ready, asyncio.get_running_loop()
        try:
            self._check_congestion()
            if not self._can_produce:
                await self._wait_for_credit()
            self._slice_end = monotonic() + SLICE_TIME
            async for item in self._generator:
                ready.append(self._pack(item))
                del item  # neither this nor what was made of it is kept while the stream waits
                large = len(ready[-1]) > _MAX_BATCH_BYTES
                if call.context.cancelled:
                    break
                if monotonic() >= self._slice_end:
                    self._flush()
                    await self._wait_for_turn()
                elif large or len(ready) >= self._batch:
                    self._flush()
                elif not self._is_flush_posted:
                    self._is_flush_posted = True
                    loop.call_soon(self._flush_posted)
                if not self._can_produce:
                    await self._wait_for_credit()
        finally:
            try:
                await self._generator.aclose()
            finally:
                self._flush()
                self._release()

    def run(self, until: float) -> bool:
        """Let the task make items for a while; see `Flow`."""
        if self._turn_waiter is not None and not self._turn_waiter.done():
            self._turns.charge_current(SLICE_TIME)
            self._turn_waiter.set_result(None)
        return False

    async def _wait_for_turn(self) -> None:
        """Wait until it is this stream's turn to use the loop's time."""
        self._turn_waiter = asyncio.get_running_loop().create_future()
        self._turns.enqueue(self)
        await self._turn_waiter
        self._turn_waiter = None
        self._slice_end = monotonic() + SLICE_TIME

    def _flush_posted(self) -> None:
        self._is_flush_posted = False
        self._flush()

    async def _wait_for_credit(self) -> None:
        self._flush()
        self._set_item_deadline(None)
        while not self._can_produce:
            self._credit_waiter = asyncio.get_running_loop().create_future()
            await self._credit_waiter
        self._credit_waiter = None
        self._slice_end = monotonic() + SLICE_TIME
        self._set_item_deadline(self.call.request.timeout)


class SyncServerStream(ServerStream):
    """A stream of a `def` that yields: resumed in the service's pool whenever it may make items.

    Between two runs it has no thread, so it may go on in another one. It has one set of context variables for all.
    """

    _generator: Generator[Any, None, None]

    def start(self) -> None:
        """See `ServerStream.begin`."""
        self._is_flush_posted = False
        self._is_running = False
        self._is_ended = False
        self._resume_timer: asyncio.TimerHandle | None = None
        self._context_vars = contextvars.copy_context()
        self._context_vars.run(set_current_context, self.call.context)
        self._run()
        self._host.register(self.call)
        self.call.context.on_cancel(lambda: self._host.inbox.post(self._continue_in_pool))

    def add_credit(self, items: int) -> None:
        """See `ServerStream.grant`."""
        super().add_credit(items)
        self._continue_in_pool()

    def _run(self) -> None:
        assert self.call.endpoint.pool is not None  # noqa: S101 - an endpoint without one has no `def` methods
        work = partial(self._context_vars.run, self._produce)
        self.call.endpoint.pool.submit(
            work, self._on_paused, label=self.call.full_name, client=self.call.account, connection=self.call.client
        )
        self._is_running = True

    def _produce(self) -> bool:
        """Make items until none may be made; return whether that was all. In the pool."""
        context, generator, ready, pack = self.call.context, self._generator, self._ready, self._pack
        if not self._produced and not context.cancelled:
            self.call.raise_if_cancelled()
        until = monotonic() + _THREAD_SLICE
        try:
            while not context.cancelled:
                if not self._can_produce or monotonic() >= until:
                    return False
                ready.append(pack(next(generator)))
                if not self._is_flush_posted:
                    self._is_flush_posted = True
                    self._host.inbox.post(self._flush_posted)
        except StopIteration:
            return True
        except BaseException:
            generator.close()
            raise
        generator.close()
        return True

    def _flush_posted(self) -> None:
        self._is_flush_posted = False  # before the rest: what is made from now on asks again
        self._turns.run_or_queue(self)

    def run(self, _until: float) -> bool:
        """Send what the thread has made, which is bounded, and go on; see `Flow`."""
        self._flush()
        if not self._is_running and not self._is_ended:
            self._set_item_deadline(None)
            self._continue_in_pool()
        return False

    def _on_paused(self, ended: bool | None, error: BaseException | None) -> None:
        """Record that the generator stands. In the pool."""
        self._host.inbox.post(partial(self._handle_paused, bool(ended), error))

    def _handle_paused(self, ended: bool, error: BaseException | None) -> None:
        self._is_running = False
        if ended or error is not None:
            self._flush()
            self._end(error)
        else:
            self._turns.run_or_queue(self)

    def _continue_in_pool(self) -> None:
        """Have the pool make more items, or close the generator, if there is something to do."""
        cancelled = self.call.context.cancelled
        if self._is_running or self._is_ended or not (cancelled or self._can_produce):
            return
        try:
            self._run()
        except Busy:
            if self._resume_timer is None:  # once, however often the caller gives credit meanwhile
                self._resume_timer = asyncio.get_running_loop().call_later(_POOL_RETRY_DELAY, self._retry_continue)
        except Draining as error:
            self._close_on_loop(error)
        else:
            if not self.call.is_answered:
                self._set_item_deadline(self.call.request.timeout)

    def _retry_continue(self) -> None:
        self._resume_timer = None
        self._continue_in_pool()

    def _close_on_loop(self, why: Draining) -> None:
        """Close the generator on the loop: the pool has been closed before, and its `finally` blocks are to run."""
        try:
            self._context_vars.run(self._generator.close)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not stop the loop
            _log.warning("%s could not be closed: %s", self.call.full_name, error_line(error))
        self._end(why)

    def _end(self, error: BaseException | None) -> None:
        self._is_ended = True
        self._release()
        packed = None if error is not None or self.call.is_answered else self.call.pack(None)
        self._host.pool_ended(self.call, packed, error)
