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

from ostler.aio import Inbox
from ostler.aio.round_robin import FIRST, NORMAL, SLICE, DeficitRoundRobin
from ostler.clock import Clock
from ostler.errors import Busy, Draining, OstlerError, WrongPattern, describe
from ostler.messaging.context import enter
from ostler.messaging.envelope import CAST, FANOUT, MAX_BATCH, RETRY, STREAM
from ostler.messaging.rpc.call import Call
from ostler.types import LOCAL_PEER, Role

_log = logging.getLogger(__name__)

_MOST_CREDIT = 65_536
"""The most items that one stream may have on their way, whatever its caller says."""
_MOST_BYTES = 4 * 1024 * 1024
"""No item is made while so many bytes are on their way to the caller."""
_MOST_AHEAD, _MOST_BYTES_AHEAD = 768, 256 * 1024
"""Items and bytes that a thread makes ahead of the loop, which alone can tell whether there is room for them."""
_FRAME = 64 * 1024
"""A message of several items is about so large, at most."""
_LOOK_AGAIN = 0.1
"""Seconds until a stream looks again whether its caller has read what waits for it."""
_THREAD_SLICE = 0.005
"""Seconds for which a generator has a thread of the pool, when it never waits."""
_AGAIN = 0.05
"""Seconds until a full pool is asked again to go on with a generator."""


class StreamHost(Protocol):
    """What runs streams: a dispatcher."""

    inbox: Inbox
    clock: Clock

    def register(self, call: Call) -> None:
        """Count a call as under way, until it has ended."""
        ...

    def pool_ended(self, call: Call, packed: bytes | None, error: BaseException | None) -> None:
        """Answer a call whose work in a thread has ended, with its result or the error."""
        ...

    def begin_async(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine for a call, and answer with what it returns."""
        ...

    def sweep_by(self, deadline: float) -> None:
        """See to it that deadlines are looked at then, a moment of the clock."""
        ...


class Streams:
    """The open streams of a dispatcher. On the loop's thread only.

    Args:
        host: The dispatcher.
        turns: Shares the loop's time among them, and other things of their callers.
    """

    def __init__(self, host: StreamHost, turns: DeficitRoundRobin) -> None:
        self.opened = 0
        self._host = host
        self._turns = turns
        self._open: dict[Call, Stream] = {}
        self._accounts: Counter[Hashable] = Counter()

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def begin(self, call: Call, generator: Any, most: int, most_of_account: int) -> None:
        """Run a generator for a call, if there are not too many already: in all, and of one uid or key.

        Raises:
            Busy: Too many streams are open, or the queue of the pool is full.
        """
        account = call.account
        if account != LOCAL_PEER.account and self._accounts[account] >= most_of_account:
            raise _too_many(call.peer.name, most_of_account)
        if len(self._open) >= most:
            raise _too_many("this daemon", most)
        on_loop = hasattr(generator, "__anext__")
        kind = LoopStream if on_loop else ThreadStream
        stream: Stream = kind(call, generator, self._host, self._turns, self._closed)
        self._open[call] = stream
        self._accounts[account] += 1
        self.opened += 1
        try:
            stream.begin()
        except BaseException:
            self._closed(call)
            raise

    def credit(self, call: Call, items: int) -> bool:
        """Let a stream make so many items more; return False when the call has none open."""
        stream = self._open.get(call)
        if stream is None:
            return False
        stream.grant(items)
        return True

    def resume(self, client: object) -> None:
        """Go on with the streams of a connection for which nothing waits any more."""
        for call, stream in list(self._open.items()):
            if call.client == client:
                stream.look_again()

    def drain(self, topic: str, why: str, cancel: Callable[[Call, OstlerError], None]) -> None:
        """End the streams of a topic."""
        for call in [call for call in self._open if call.request.topic == topic]:
            cancel(call, Draining(f"{call.where} was ended: {why}", topic=topic, why=why))

    def _closed(self, call: Call) -> None:
        if self._open.pop(call, None) is None:
            return
        account = call.account
        self._accounts[account] -= 1
        if not self._accounts[account]:
            del self._accounts[account]


def check_pattern(call: Call) -> None:
    """Refuse a call of a method that yields, and a stream of one that does not.

    Raises:
        WrongPattern: It is asked for in the wrong way; says in which it can be.
    """
    if not call.method.signature.streams:
        what, hint = "does not yield, and cannot be streamed", "use `client.call(…)`"
    elif not call.request.flags & STREAM:
        what, hint = "yields, and cannot be called or cast", "use `for item in client.stream(…)`"
    elif call.request.flags & (CAST | FANOUT | RETRY):
        what, hint = "yields, and can be neither cast nor retried", "use `for item in client.stream(…)`"
    else:
        return
    raise WrongPattern(f"{call.where} {what}", hint=hint, method=call.where, streams=call.method.signature.streams)


def _too_many(who: str, limit: int) -> Busy:
    return Busy(
        f"{who} has {limit} streams open and may not have more", hint="close some of them", retry_after=1.0, limit=limit
    )


class Stream:
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
        closed: Callable[[Call], None],
    ) -> None:
        self.call = call
        self.account: Hashable = call.peer.account
        self.rank = FIRST if call.context.role is Role.ADMIN else NORMAL
        self._generator = generator
        self._host = host
        self._turns = turns
        self._closed = closed
        self._granted = min(call.request.credit, _MOST_CREDIT)
        self._batch = max(1, min(MAX_BATCH, self._granted // 4))
        self._made = 0
        self._bytes_made = 0
        self._bytes_taken = 0
        self._flushed = self._bytes_flushed = 0
        self._sent = 0
        self._taken = 0
        self._congested = False
        self._retry: asyncio.TimerHandle | None = None
        self._ready: deque[bytes] = deque()
        self._on_the_way: deque[tuple[int, int]] = deque()

    def begin(self) -> None:
        """Begin to make items."""
        raise NotImplementedError

    def run(self, until: float) -> bool:
        """Work in a turn of the caller's account; see `Flow`."""
        raise NotImplementedError

    def grant(self, items: int) -> None:
        """Take credit: the caller has taken so many items, and wants as many more."""
        self._granted = min(self._granted + items, self._sent + _MOST_CREDIT)
        # One that began without credit sends no single items for ever.
        self._batch = max(self._batch, min(MAX_BATCH, (self._granted - self._sent) // 4))
        self._taken += items
        while self._on_the_way and self._on_the_way[0][0] <= self._taken:
            self._bytes_taken += self._on_the_way.popleft()[1]

    @property
    def _may(self) -> bool:
        """Whether another item may be made."""
        made = self._bytes_made
        return (
            self._made < self._granted
            and self._made - self._flushed < _MOST_AHEAD
            and made - self._bytes_flushed < _MOST_BYTES_AHEAD
            and made - self._bytes_taken < _MOST_BYTES
            and not self._congested
        )

    def look_again(self) -> None:
        """Go on, if not too much waits for the caller any more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._congested:
            self._look()
            self.grant(0)

    def _look(self) -> None:
        """Find out whether too much waits for the caller; if so, look again later. On the loop."""
        self._congested = self.call.congested
        if self._congested and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self.look_again)

    def _forget(self) -> None:
        """Let go of the stream, which has ended. On the loop."""
        self._turns.remove(self)
        self._congested = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._closed(self.call)

    def _pack(self, item: object) -> bytes:
        """Encode one item, and count it."""
        packed = self.call.pack_item(item, self._made)
        self._made += 1
        self._bytes_made += len(packed)
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
        if self.call.settled:
            return
        if size <= _FRAME:
            for begin in range(0, len(items), self._batch):
                part = items[begin : begin + self._batch]
                self._send(part, sum(map(len, part)))
        else:
            self._send_large(items)
        self._look()
        self._expect(self.call.request.timeout)

    def _send_large(self, items: list[bytes]) -> None:
        """Send items that are too many bytes for one message."""
        begin = size = 0
        for end, item in enumerate(items):
            if end > begin and (end - begin >= self._batch or size + len(item) > _FRAME):
                self._send(items[begin:end], size)
                begin, size = end, 0
            size += len(item)
        self._send(items[begin:], size)

    def _send(self, items: list[bytes], size: int) -> None:
        first, self._sent = self._sent, self._sent + len(items)
        self._on_the_way.append((self._sent, size))
        self.call.items(first, items)

    def _expect(self, timeout: float | None) -> None:
        """Say until when the next item has to come; None while the caller is the one who is waited for."""
        if timeout is None:
            self.call.context.deadline = None
        else:
            self.call.context.deadline = deadline = self._host.clock.monotonic() + timeout
            self._host.sweep_by(deadline)


class LoopStream(Stream):
    """A stream of an `async def` that yields."""

    _generator: AsyncGenerator[Any, None]

    def begin(self) -> None:
        """See `Stream.begin`."""
        self._posted = False
        self._waits: asyncio.Future[None] | None = None
        self._my_turn: asyncio.Future[None] | None = None
        self._until = 0.0
        self._host.begin_async(self.call, self._run())

    def grant(self, items: int) -> None:
        """See `Stream.grant`."""
        super().grant(items)
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    async def _run(self) -> None:
        call, ready, loop = self.call, self._ready, asyncio.get_running_loop()
        try:
            self._look()
            if not self._may:
                await self._credit()
            self._until = monotonic() + SLICE
            async for item in self._generator:
                ready.append(self._pack(item))
                del item  # neither this nor what was made of it is kept while the stream waits
                large = len(ready[-1]) > _FRAME
                if call.context.cancelled:
                    break
                if monotonic() >= self._until:
                    self._flush()
                    await self._turn()
                elif large or len(ready) >= self._batch:
                    self._flush()
                elif not self._posted:
                    self._posted = True
                    loop.call_soon(self._due)
                if not self._may:
                    await self._credit()
        finally:
            try:
                await self._generator.aclose()
            finally:
                self._flush()
                self._forget()

    def run(self, until: float) -> bool:
        """Let the task make items for a while; see `Flow`."""
        if self._my_turn is not None and not self._my_turn.done():
            self._turns.charge(SLICE)
            self._my_turn.set_result(None)
        return False

    async def _turn(self) -> None:
        """Wait until it is this stream's turn to use the loop's time."""
        self._my_turn = asyncio.get_running_loop().create_future()
        self._turns.queue(self)
        await self._my_turn
        self._my_turn = None
        self._until = monotonic() + SLICE

    def _due(self) -> None:
        self._posted = False
        self._flush()

    async def _credit(self) -> None:
        self._flush()
        self._expect(None)
        while not self._may:
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits
        self._waits = None
        self._until = monotonic() + SLICE
        self._expect(self.call.request.timeout)


class ThreadStream(Stream):
    """A stream of a `def` that yields: resumed in the service's pool whenever it may make items.

    Between two runs it has no thread, so it may go on in another one. It has one set of context variables for all.
    """

    _generator: Generator[Any, None, None]

    def begin(self) -> None:
        """See `Stream.begin`."""
        self._posted = False
        self._running = False
        self._over = False
        self._later: asyncio.TimerHandle | None = None
        self._variables = contextvars.copy_context()
        self._variables.run(enter, self.call.context)
        self._run()
        self._host.register(self.call)
        self.call.context.on_cancel(lambda: self._host.inbox.post(self._go_on))

    def grant(self, items: int) -> None:
        """See `Stream.grant`."""
        super().grant(items)
        self._go_on()

    def _run(self) -> None:
        assert self.call.endpoint.pool is not None  # noqa: S101 - an endpoint without one has no `def` methods
        work = partial(self._variables.run, self._make)
        self.call.endpoint.pool.submit(
            work, self._made_some, label=self.call.where, client=self.call.account, connection=self.call.client
        )
        self._running = True

    def _make(self) -> bool:
        """Make items until none may be made; return whether that was all. In the pool."""
        context, generator, ready, pack = self.call.context, self._generator, self._ready, self._pack
        if not self._made and not context.cancelled:
            self.call.check_wanted()
        until = monotonic() + _THREAD_SLICE
        try:
            while not context.cancelled:
                if not self._may or monotonic() >= until:
                    return False
                ready.append(pack(next(generator)))
                if not self._posted:
                    self._posted = True
                    self._host.inbox.post(self._due)
        except StopIteration:
            return True
        except BaseException:
            generator.close()
            raise
        generator.close()
        return True

    def _due(self) -> None:
        self._posted = False  # before the rest: what is made from now on asks again
        self._turns.work(self)

    def run(self, _until: float) -> bool:
        """Send what the thread has made, which is bounded, and go on; see `Flow`."""
        self._flush()
        if not self._running and not self._over:
            self._expect(None)
            self._go_on()
        return False

    def _made_some(self, ended: bool | None, error: BaseException | None) -> None:
        """Take note that the generator stands. In the pool."""
        self._host.inbox.post(partial(self._stands, bool(ended), error))

    def _stands(self, ended: bool, error: BaseException | None) -> None:
        self._running = False
        if ended or error is not None:
            self._flush()
            self._end(error)
        else:
            self._turns.work(self)

    def _go_on(self) -> None:
        """Have the pool make more items, or close the generator, if there is something to do."""
        cancelled = self.call.context.cancelled
        if self._running or self._over or not (cancelled or self._may):
            return
        try:
            self._run()
        except Busy:
            if self._later is None:  # once, however often the caller gives credit meanwhile
                self._later = asyncio.get_running_loop().call_later(_AGAIN, self._try_again)
        except Draining as error:
            self._close_here(error)
        else:
            if not self.call.settled:
                self._expect(self.call.request.timeout)

    def _try_again(self) -> None:
        self._later = None
        self._go_on()

    def _close_here(self, why: Draining) -> None:
        """Close the generator on the loop: the pool has been closed before, and its `finally` blocks are to run."""
        try:
            self._variables.run(self._generator.close)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not stop the loop
            _log.warning("%s could not be closed: %s", self.call.where, describe(error))
        self._end(why)

    def _end(self, error: BaseException | None) -> None:
        self._over = True
        self._forget()
        packed = None if error is not None or self.call.settled else self.call.pack(None)
        self._host.pool_ended(self.call, packed, error)
