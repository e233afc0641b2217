"""What threads of a pool have done: replies that they send by themselves, and large results, one at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ostler.aio import LoopQueue, WorkerPool
from ostler.aio.spin_backoff import SpinBackoff
from ostler.clock import Clock
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT, RETRY, STREAM

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call


_COLLECT_DELAY = 0.002
"""Seconds within which the loop accounts for a reply by itself, so that nobody has to wake it up for that."""
_SPIN_TIMEOUT = 60e-6
"""Seconds within which a method of a thread usually ends that the loop waits for."""
_UNSUPPORTED_FLAGS = CAST | FANOUT | RETRY | STREAM


class ThreadReplies:
    """Lets the thread that has a result send it, without the way through the loop.

    A caller in a loop that sleeps would wait for two wake-ups: of the thread, and of the loop that sends what the
    thread has. Only the plain reply goes this way. What has to be counted, audited and forgotten is put down before the
    reply is sent, and done by the loop before it takes the next message: no caller can see that it was not done yet.

    Args:
        inbox: Wakes the loop up.
        clock: The source of time.
        on_reply_sent: Takes note of a call whose caller has its reply. On the loop.
    """

    def __init__(self, inbox: LoopQueue, clock: Clock, on_reply_sent: Callable[[Call], None]) -> None:
        self.sent: deque[Call] = deque()
        """The calls that are replied to and not accounted for."""
        self._inbox = inbox
        self._clock = clock
        self._on_reply_sent = on_reply_sent
        self._timer: asyncio.TimerHandle | None = None
        self._pools: set[WorkerPool] = set()
        self._should_spin = False
        self._backoff = SpinBackoff()

    def on_job_submitted(self, pool: WorkerPool, typical_seconds: float, *, wakes_later: bool) -> None:
        """Record a job in a pool. On the loop.

        Args:
            pool: Where it waits.
            typical_seconds: Seconds that such a job usually takes.
            wakes_later: Whether the pool waits for `on_batch_end` to wake a thread up.
        """
        self._should_spin = self._should_spin or typical_seconds < _SPIN_TIMEOUT
        if wakes_later:
            self._pools.add(pool)

    def on_batch_end(self, may_spin: bool) -> None:
        """Hand over to the pools what came together, and wait a moment for what is known to be quick. On the loop.

        To go to sleep and be woken costs the loop several times as much as a quick method does.

        Args:
            may_spin: Whether to wait; not on a core that the callers run on as well.
        """
        self._wake_pools()
        if self.sent:  # the thread had the core while it was woken up
            self.collect()
        elif may_spin and self._should_spin and self._backoff.should_wait():
            came = self._inbox.wait_and_run(_SPIN_TIMEOUT)
            self.collect()
            self._backoff.record_wait(succeeded=came)
        self._should_spin = False

    def _wake_pools(self) -> None:
        while self._pools:
            self._pools.pop().wake()

    def enable_for(self, call: Call) -> bool:
        """Let a thread reply to a call that is about to begin there, if that is possible. On the loop.

        Returns:
            Whether the thread is to try it.
        """
        if not call.can_reply_from_thread or call.request.flags & _UNSUPPORTED_FLAGS:
            return False
        call.reply_lock = threading.Lock()
        if self._timer is None:
            self._timer = self._inbox.loop.call_later(_COLLECT_DELAY, self._on_timer)
        return True

    def send(self, call: Call, packed: bytes) -> bool:
        """Send a result, unless something stands before it or the caller has been answered. Any thread.

        Returns:
            Whether nothing is left to do; else the loop has to see to it.
        """
        if not call.send_reply_from_thread(packed, lambda: self._claim_reply(call)):
            return False
        # The reply is out: nobody waits for what is left. A timer that has not run yet will run after `_claim_reply`.
        if self._timer is None:
            self._inbox.post(self.collect)
        else:
            self._inbox.end_wait()
        return True

    def collect(self) -> None:
        """Account for what was replied to. On the loop."""
        sent = self.sent
        while sent:
            self._on_reply_sent(sent.popleft())

    def close(self) -> None:
        """Account for what was replied to, and set no timer any more. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.collect()

    def _claim_reply(self, call: Call) -> bool:
        if not call.claim_reply():
            return False
        call.ended_at = self._clock.monotonic()
        self.sent.append(call)
        return True

    def _on_timer(self) -> None:
        self._timer = None  # before the rest: a reply from now on wakes the loop up
        self._wake_pools()  # should the end of a batch not have been told
        self.collect()


LARGE_RESULT_SIZE = 1024 * 1024
"""Bytes of a large result."""
_LOCK_TIMEOUT = 1.0
"""Seconds that a thread waits for those before it; what a plugin's own type does while it is encoded may take long."""
_PAUSE_FACTOR, _MAX_PAUSE = 2.0, 0.05
"""The pause after a result is so many times as long as its encoding, and so many seconds at most."""


class LargeResults:
    """Encodes results in the threads that have them; those of methods that return much wait for each other.

    The interpreter is held for the whole of an encoding, some milliseconds for each 8 MB, and the loop needs it back
    after each of its system calls. So there is one such encoding at a time, and for two thirds of the time none.

    Args:
        sleep: Waits for so many seconds.
        monotonic: Returns the time.
        lock_timeout: Seconds that a thread waits for those before it.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        lock_timeout: float = _LOCK_TIMEOUT,
    ) -> None:
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock_timeout = lock_timeout
        self._lock = threading.Lock()
        self._next_start_at = 0.0

    def pack(self, call: Call, result: object) -> bytes:
        """Return the result of a call as bytes. Any thread of a pool; raises what `Call.pack` does."""
        stats = call.method.stats
        packed = self._pack_paced(call, result) if stats.has_large_results else call.pack(result)
        stats.has_large_results = len(packed) > LARGE_RESULT_SIZE
        return packed

    def _pack_paced(self, call: Call, result: object) -> bytes:
        if not self._lock.acquire(timeout=self._lock_timeout):
            return call.pack(result)
        try:
            pause = self._next_start_at - self._monotonic()
            if pause > 0.0:
                self._sleep(pause)
            began = self._monotonic()
            try:
                return call.pack(result)
            finally:
                ended = self._monotonic()
                self._next_start_at = ended + min((ended - began) * _PAUSE_FACTOR, _MAX_PAUSE)
        finally:
            self._lock.release()
