"""The requests that are under way, and how many of them each account has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from ostler.messaging.rpc.refusals import caller_has_share, too_many, too_many_here
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.endpoint import Endpoint

MAX_CONTROL = 1000
"""Requests to the topic `ostler` that one account may have under way; all other limits do not count for it."""
OWN = "local"
"""The account of the daemon itself, which may use all of a limit."""


class InFlight:
    """The requests under way of a dispatcher. On the loop's thread only.

    No account may have more requests under way than there is room left, in the daemon and in each service, so that
    there is always some for another; see `FairQueue`. The topic `ostler` has a limit of its own.
    """

    def __init__(self) -> None:
        self._calls: dict[Call, Hashable] = {}
        self._reserved = 0
        self._accounts: Counter[Hashable] = Counter()
        self._here: dict[str, Counter[Hashable]] = {}

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
        """Take note of a request that did not end at once."""
        account, topic = call.account, call.endpoint.topic
        self._calls[call] = account
        if topic == CONTROL_TOPIC:
            self._reserved += 1
        else:
            self._accounts[account] += 1
        here = self._here.get(topic)
        if here is None:
            here = self._here[topic] = Counter()
        here[account] += 1

    def remove(self, call: Call) -> None:
        """Forget a request that has ended."""
        if call not in self._calls:
            return
        account, topic = self._calls.pop(call), call.endpoint.topic
        if topic == CONTROL_TOPIC:
            self._reserved -= 1
        else:
            _less(self._accounts, account)
        _less(self._here[topic], account)
        if not self._here[topic]:
            del self._here[topic]

    def check(self, call: Call, endpoint: Endpoint, limit: int) -> None:
        """Refuse a request for which there is no room.

        Args:
            call: The request.
            endpoint: Who is to serve it.
            limit: The most requests under way in the daemon.

        Raises:
            Busy: The daemon, the service or the account has as many as it may.
        """
        if endpoint.topic == CONTROL_TOPIC:
            if endpoint.in_flight >= MAX_CONTROL and self._here[CONTROL_TOPIC][call.account] >= MAX_CONTROL:
                raise caller_has_share(call, "the topic ostler", MAX_CONTROL)
            return
        count = len(self._calls) - self._reserved
        # As long as half of the room is free, nobody can have more than what is free: it need not be looked up.
        if count * 2 >= limit:
            if count >= limit:
                raise too_many(limit)
            if not _fits(self._accounts, call.account, limit - count):
                raise caller_has_share(call, "this daemon", limit)
        if endpoint.in_flight * 2 >= endpoint.max_in_flight:
            self._check_service(call, endpoint)

    def _check_service(self, call: Call, endpoint: Endpoint) -> None:
        limit = endpoint.max_in_flight
        if endpoint.in_flight >= limit:
            raise too_many_here(endpoint.topic, limit)
        if not _fits(self._here.get(endpoint.topic, Counter()), call.account, limit - endpoint.in_flight):
            raise caller_has_share(call, endpoint.topic, limit)


def _fits(counts: Counter[Hashable], account: Hashable, free: int) -> bool:
    mine = counts[account]
    return account == OWN or not mine or mine < free


def _less(counts: Counter[Hashable], account: Hashable) -> None:
    counts[account] -= 1
    if not counts[account]:
        del counts[account]
