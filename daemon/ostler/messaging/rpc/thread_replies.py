"""Replies that threads of a pool send by themselves; the loop accounts for them later."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ostler.aio import LoopQueue, WorkerPool
from ostler.aio.spin_backoff import SpinBackoff
from ostler.clock import Clock
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT, RETRY, STREAM

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
