"""The requests that are in progress, how many of them each account has, and the timer of their deadlines."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

from ostler.clock import Clock
from ostler.messaging.rpc.errors import caller_limit_error, daemon_limit_error, service_limit_error
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.endpoint import Endpoint


MAX_CONTROL_REQUESTS = 1000
"""Requests to the topic `ostler` that one account may have in progress; all other limits do not count for it."""
LOCAL_ACCOUNT = "local"
"""The account of the daemon itself, which may use all of a limit."""


class InFlight:
    """The requests in progress of a dispatcher. On the loop's thread only.

    No account may have more requests in progress than there is room left, in the daemon and in each service, so that
    there is always some for another; see `FairQueue`. The topic `ostler` has a limit of its own.
    """

    def __init__(self) -> None:
        self._calls: dict[Call, Hashable] = {}
        self._control_count = 0
        self._by_account: Counter[Hashable] = Counter()
        self._by_topic: dict[str, Counter[Hashable]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def since(self, moment: float) -> Iterator[Call]:
        """Yield those that came after a moment of the clock, the last one first; none may be added meanwhile."""
        for call in reversed(self._calls):
            if call.arrived_at <= moment:
                return
            yield call

    def add(self, call: Call) -> None:
        """Record a request that did not end at once."""
        account, topic = call.account, call.endpoint.topic
        self._calls[call] = account
        if topic == CONTROL_TOPIC:
            self._control_count += 1
        else:
            self._by_account[account] += 1
        here = self._by_topic.get(topic)
        if here is None:
            here = self._by_topic[topic] = Counter()
        here[account] += 1

    def remove(self, call: Call) -> None:
        """Forget a request that has ended."""
        if call not in self._calls:
            return
        account, topic = self._calls.pop(call), call.endpoint.topic
        if topic == CONTROL_TOPIC:
            self._control_count -= 1
        else:
            _decrement(self._by_account, account)
        _decrement(self._by_topic[topic], account)
        if not self._by_topic[topic]:
            del self._by_topic[topic]

    def check_limits(self, call: Call, endpoint: Endpoint, limit: int) -> None:
        """Refuse a request for which there is no room.

        Args:
            call: The request.
            endpoint: Who is to serve it.
            limit: The most requests in progress in the daemon.

        Raises:
            Busy: The daemon, the service or the account has as many as it may.
        """
        if endpoint.topic == CONTROL_TOPIC:
            if (
                endpoint.in_flight >= MAX_CONTROL_REQUESTS
                and self._by_topic[CONTROL_TOPIC][call.account] >= MAX_CONTROL_REQUESTS
            ):
                raise caller_limit_error(call, "the topic ostler", MAX_CONTROL_REQUESTS)
            return
        count = len(self._calls) - self._control_count
        # As long as half of the room is free, nobody can have more than what is free: it need not be looked up.
        if count * 2 >= limit:
            if count >= limit:
                raise daemon_limit_error(limit)
            if not _has_room(self._by_account, call.account, limit - count):
                raise caller_limit_error(call, "this daemon", limit)
        if endpoint.in_flight * 2 >= endpoint.max_in_flight:
            self._check_service_limit(call, endpoint)

    def _check_service_limit(self, call: Call, endpoint: Endpoint) -> None:
        limit = endpoint.max_in_flight
        if endpoint.in_flight >= limit:
            raise service_limit_error(endpoint.topic, limit)
        if not _has_room(self._by_topic.get(endpoint.topic, Counter()), call.account, limit - endpoint.in_flight):
            raise caller_limit_error(call, endpoint.topic, limit)


def _has_room(counts: Counter[Hashable], account: Hashable, free: int) -> bool:
    mine = counts[account]
    return account == LOCAL_ACCOUNT or not mine or mine < free


def _decrement(counts: Counter[Hashable], account: Hashable) -> None:
    counts[account] -= 1
    if not counts[account]:
        del counts[account]


_MIN_INTERVAL = 0.005
"""Seconds between two sweeps: ten thousand deadlines in a row must not keep the loop busy."""
_FAILURE_DELAY = 1.0
"""Seconds after a sweep that failed, which nothing in it should make it do."""


class DeadlineTimer:
    """Calls `callback` when it said it wants to be called next, or sooner when something more urgent has come.

    A timer for each request costs more than the request. Here a new deadline is one comparison, unless it is the
    earliest. On the loop's thread only.

    Args:
        clock: The source of time.
        callback: Does what is due and returns the moment of the monotonic clock to be called next, None for never.
        failure_delay: Seconds after which it is called again when it failed.
    """

    def __init__(
        self, clock: Clock, callback: Callable[[float], float | None], failure_delay: float = _FAILURE_DELAY
    ) -> None:
        self._clock = clock
        self._callback = callback
        self._failure_delay = failure_delay
        self._due_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        # A request in whose midst the timer is set is not the one that is swept.
        self._context = contextvars.copy_context()

    def schedule(self, at: float) -> None:
        """See to it that `callback` is called at this moment of the monotonic clock, or before."""
        if self._due_at is None or at < self._due_at:
            self._arm(at)

    def cancel(self) -> None:
        """Stop the timer until something is scheduled again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due_at = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = at
        delay = max(0.0, at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = self._due_at = None
        now = self._clock.monotonic()
        try:
            again = self._callback(now)
        except BaseException:  # logged by the loop; the deadlines of all others are kept all the same
            self.schedule(now + self._failure_delay)
            raise
        if again is not None:
            self.schedule(max(again, now + _MIN_INTERVAL))
