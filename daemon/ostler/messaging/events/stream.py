"""The events of one subscription for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.clock import Clock
from ostler.errors import ConnectionLost, InvalidInput, OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.rpc.losses import of_other_process
from ostler.messaging.transport import Transport

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Refill, Replay, Since

Ask: TypeAlias = Callable[[str, dict[str, Any], Any], Any]
"""Calls a method of the daemon: its name, its arguments, the type of its result."""
_FOR_EVER = 3600.0


def subscription_to(
    patterns: Iterable[str], since: Since | None, timeout: float | None = None, *, last: bool
) -> tuple[Subscription, Replay | None]:
    """Return a subscription, and what reads the journal before it; None for that when only live events are wanted.

    Args:
        patterns: Which events.
        since: Where to begin in the journal; None for live events only.
        timeout: Seconds that the daemon has to answer it, less than the ten that it always has; None for these.
        last: Whether to begin with the last event of each key.

    Raises:
        InvalidInput: Both were asked for: last events and those since a number; or that is none.
    """
    if since is None:
        return Subscription(patterns, last=last, timeout=timeout), None
    if last:
        raise InvalidInput("a subscription begins with last events or with those since a number, not with both")
    from ostler.messaging.events.replay import Replay

    subscription = Subscription(patterns, hold=True, timeout=timeout)
    return subscription, Replay(subscription, since)


class EventStream(Iterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` stands where some are missing. One thread at a time.

    Iterating blocks until the next event; it ends when the stream is closed.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        subscription: Subscription,
        closed: Any,
        *,
        ask: Ask | None = None,
        replay: Replay | None = None,
        refetch: bool = False,
    ) -> None:
        self._clock = clock
        self._subscription = subscription
        self._told_closed = closed
        self._ask = ask
        self._replay = replay
        self._refetch = refetch
        self._refill: Refill | None = None
        self._ready: deque[Event | Gap] = deque()
        self._found: deque[Event | Gap] = deque()
        self._open = True
        self._process = os.getpid()
        self._link = transport.subscribe(subscription.prefixes)
        try:
            self._be_admitted()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Event | Gap:
        while self._open:
            found = self.next(timeout=_FOR_EVER)
            if found is not None:
                return found
        raise StopIteration

    def next(self, timeout: float) -> Event | Gap | None:
        """Return the next event, None when none has come within `timeout` seconds.

        Raises:
            ConnectionLost: The daemon has gone.
            OstlerError: The journal was asked for, and could not be read.
        """
        if self._process != os.getpid():
            raise of_other_process()
        until = self._clock.monotonic() + timeout
        while self._open and not self._ready:
            if self._read_journal():
                continue
            if self._found:
                self._sort(self._found.popleft())
                continue
            left = until - self._clock.monotonic()
            self._take(max(0.0, left))
            if left <= 0 and not self._found:
                break
        return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._open:
            self._open = False
            if self._process == os.getpid():
                self._link.close()
            else:
                self._link.abandon()
            self._told_closed(self)

    def _sort(self, item: Event | Gap) -> None:
        """Give an item to the user, or fetch first what a gap stands for."""
        if self._refetch and isinstance(item, Gap) and item.kept:
            from ostler.messaging.events.replay import Refill

            self._refill = Refill(self._subscription, item)
        else:
            self._ready.append(item)

    def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        if self._ask is None:
            return False
        if self._replay is not None:
            if not self._replay.done:
                self._ready.extend(self._replay.take(self._ask(*self._replay.ask())))
            if self._replay.done:
                self._replay = None
                self._found.extend(self._subscription.release())
            return True
        if self._refill is not None:
            self._fill(self._ask, self._refill)
            return True
        return False

    def _fill(self, ask: Ask, refill: Refill) -> None:
        try:
            self._ready.extend(refill.take(ask(*refill.ask())))
        except OstlerError:  # the gap is no secret: it is seen, and can be asked for again
            self._ready.extend(refill.rest())
            self._refill = None
            return
        if refill.done:
            self._refill = None

    def _take(self, timeout: float) -> None:
        for data in self._link.receive(timeout):
            self._found.extend(self._subscription.receive(data))

    def _be_admitted(self) -> None:
        until = self._clock.monotonic() + self._subscription.patience
        while not self._subscription.admitted:
            left = until - self._clock.monotonic()
            if left <= 0:
                raise ConnectionLost(
                    f"the daemon did not answer a subscription within {self._subscription.patience:g} s",
                    hint="see `systemctl status ostler` and the daemon's log",
                )
            self._take(left)
