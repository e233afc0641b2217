"""Replies that threads of a pool send by themselves; the loop accounts for them later."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ostler.aio import Inbox, WorkerPool
from ostler.clock import Clock
from ostler.messaging.envelope import CAST, FANOUT, RETRY, STREAM
from ostler.messaging.rpc.call import Call
from ostler.messaging.spin_backoff import SpinBackoff

_DELAY = 0.002
"""Seconds within which the loop accounts for a reply by itself, so that nobody has to wake it up for that."""
_QUICK = 60e-6
"""Seconds within which a method of a thread usually ends that the loop waits for."""
_NOT_PLAIN = CAST | FANOUT | RETRY | STREAM


class ThreadReplies:
    """Lets the thread that has a result send it, without the way through the loop.

    A caller in a loop that sleeps would wait for two wake-ups: of the thread, and of the loop that sends what the
    thread has. Only the plain reply goes this way. What has to be counted, audited and forgotten is put down before the
    reply is sent, and done by the loop before it takes the next message: no caller can see that it was not done yet.

    Args:
        inbox: Wakes the loop up.
        clock: The source of time.
        account: Takes note of a call whose caller has its reply. On the loop.
    """

    def __init__(self, inbox: Inbox, clock: Clock, account: Callable[[Call], None]) -> None:
        self.sent: deque[Call] = deque()
        """The calls that are replied to and not accounted for."""
        self._inbox = inbox
        self._clock = clock
        self._account = account
        self._timer: asyncio.TimerHandle | None = None
        self._pools: set[WorkerPool] = set()
        self._quick = False
        self._backoff = SpinBackoff()

    def begun(self, pool: WorkerPool, usual: float, *, later: bool) -> None:
        """Take note of a job in a pool. On the loop.

        Args:
            pool: Where it waits.
            usual: Seconds that such a job usually takes.
            later: Whether the pool waits for `end_of_batch` to wake a thread up.
        """
        self._quick = self._quick or usual < _QUICK
        if later:
            self._pools.add(pool)

    def end_of_batch(self, may_wait: bool) -> None:
        """Hand over to the pools what came together, and wait a moment for what is known to be quick. On the loop.

        To go to sleep and be woken costs the loop several times as much as a quick method does.

        Args:
            may_wait: Whether to wait; not on a core that the callers run on as well.
        """
        self._wake_pools()
        if self.sent:  # the thread had the core while it was woken up
            self.collect()
        elif may_wait and self._quick and self._backoff.left():
            came = self._inbox.wait(_QUICK)
            self.collect()
            self._backoff.learn(came=came)
        self._quick = False

    def _wake_pools(self) -> None:
        while self._pools:
            self._pools.pop().wake()

    def expect(self, call: Call) -> bool:
        """Let a thread reply to a call that is about to begin there, if that is possible. On the loop.

        Returns:
            Whether the thread is to try it.
        """
        if not call.replies_from_threads or call.request.flags & _NOT_PLAIN:
            return False
        call.answer_lock = threading.Lock()
        if self._timer is None:
            self._timer = self._inbox.loop.call_later(_DELAY, self._due)
        return True

    def send(self, call: Call, packed: bytes) -> bool:
        """Send a result, unless something stands before it or the caller has been answered. Any thread.

        Returns:
            Whether nothing is left to do; else the loop has to see to it.
        """
        if not call.reply_from_thread(packed, lambda: self._claim(call)):
            return False
        # The reply is out: nobody waits for what is left. A timer that has not run yet will run after `_claim`.
        if self._timer is None:
            self._inbox.post(self.collect)
        else:
            self._inbox.end_wait()
        return True

    def collect(self) -> None:
        """Account for what was replied to. On the loop."""
        sent = self.sent
        while sent:
            self._account(sent.popleft())

    def close(self) -> None:
        """Account for what was replied to, and set no timer any more. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.collect()

    def _claim(self, call: Call) -> bool:
        if not call.claim():
            return False
        call.ended_at = self._clock.monotonic()
        self.sent.append(call)
        return True

    def _due(self) -> None:
        self._timer = None  # before the rest: a reply from now on wakes the loop up
        self._wake_pools()  # should the end of a batch not have been told
        self.collect()
