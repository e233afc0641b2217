"""The events of one subscription for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from ostler.clock import Clock
from ostler.errors import ConnectionLost
from ostler.messaging.events import Event, Gap, Subscription
from ostler.messaging.transport import Transport

_ADMISSION = 10.0
_FOR_EVER = 3600.0


class EventStream(Iterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` stands where some are missing. One thread at a time.

    Iterating blocks until the next event; it ends when the stream is closed.
    """

    def __init__(self, transport: Transport, clock: Clock, subscription: Subscription, closed: Any) -> None:
        self._clock = clock
        self._subscription = subscription
        self._told_closed = closed
        self._found: deque[Event | Gap] = deque()
        self._open = True
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
        """
        until = self._clock.monotonic() + timeout
        while self._open and not self._found:
            left = until - self._clock.monotonic()
            self._take(max(0.0, left))
            if left <= 0:
                break
        return self._found.popleft() if self._found else None

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._open:
            self._open = False
            self._link.close()
            self._told_closed(self)

    def _take(self, timeout: float) -> None:
        for data in self._link.receive(timeout):
            self._found.extend(self._subscription.receive(data))

    def _be_admitted(self) -> None:
        until = self._clock.monotonic() + _ADMISSION
        while not self._subscription.admitted:
            left = until - self._clock.monotonic()
            if left <= 0:
                raise ConnectionLost(
                    f"the daemon did not answer a subscription within {_ADMISSION:g} s",
                    hint="see `systemctl status ostler` and the daemon's log",
                )
            self._take(left)
