"""What one subscription has for its reader, without I/O: both event streams are built on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ostler.errors import ConnectionLost, InvalidInput, OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.replay import GapFill, Replay
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.wire.transport import Data

if TYPE_CHECKING:
    from ostler.messaging.events.replay import GapFill, Replay, Since


def make_subscription(
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
        raise InvalidInput("a subscription starts with last events or with events since a number, not with both")
    subscription = Subscription(patterns, hold=True, timeout=timeout)
    return subscription, Replay(subscription, since)


class EventFeed:
    """The items of one subscription in their order: what the journal has first, then what comes live.

    Whoever drives it hands over what comes (`receive`), gives its reader what `pop` returns, and when that is None asks
    the daemon what `next_request` says, and answers with `apply_reply` or `apply_error`. One thread at a time.

    Args:
        subscription: What was subscribed to.
        replay: Reads the journal before the live events; None when only these are wanted.
        refetch: Whether the events of a gap are fetched from the journal, where it has them.
    """

    def __init__(self, subscription: Subscription, replay: Replay | None = None, *, refetch: bool = False) -> None:
        self.subscription = subscription
        self._replay = replay
        self._gap_fill: GapFill | None = None
        self._should_refetch = refetch
        self._ready: deque[Event | Gap] = deque()
        self._received: deque[Event | Gap] = deque()

    @property
    def waiting_count(self) -> int:
        """How many live items wait for the reader."""
        return len(self._received) + self.subscription.held_count

    def receive(self, data: Data) -> None:
        """Take what came from a publisher.

        Raises:
            OstlerError: The subscription was refused.
        """
        self._received.extend(self.subscription.receive(data))

    def pop(self) -> Event | Gap | None:
        """Return the next item; None when there is none, or when the journal has to be asked first."""
        while not self._ready and self._received and self._replay is None and self._gap_fill is None:
            self._deliver_or_refetch(self._received.popleft())
        return self._ready.popleft() if self._ready else None

    def next_request(self) -> tuple[str, dict[str, Any], Any] | None:
        """Return what to ask the daemon: a method of the topic `ostler`, its arguments, its type; None for nothing."""
        self._finish_sources()
        source = self._replay or self._gap_fill
        return None if source is None else source.next_request()

    def apply_reply(self, reply: Any) -> None:
        """Take the answer to the last `question`."""
        source = self._replay or self._gap_fill
        if source is not None:
            self._ready.extend(source.apply_reply(reply))
            self._finish_sources()

    def apply_error(self, error: OstlerError) -> None:
        """Record that the last `question` got no answer.

        Raises:
            OstlerError: The same; the reader has to know, for it began with what the journal has.
        """
        if self._replay is not None:
            raise error
        if self._gap_fill is not None:  # the gap itself is shown, and can be requested again
            self._ready.extend(self._gap_fill.remaining_gap())
            self._gap_fill = None

    def stop_requests(self) -> None:
        """Give the reader what is there already, gaps as they are: nobody can be asked any more."""
        if self._gap_fill is not None:
            self._ready.extend(self._gap_fill.remaining_gap())
        self._replay = self._gap_fill = None
        self._should_refetch = False

    def unanswered_error(self) -> ConnectionLost:
        """Return the error of a subscription that the daemon has not answered in time."""
        return ConnectionLost(
            f"the daemon did not answer a subscription within {self.subscription.admission_timeout:g} s",
            hint="see `systemctl status ostler` and the daemon's log",
        )

    def _deliver_or_refetch(self, item: Event | Gap) -> None:
        """Give an item to the reader, or fetch first what a gap stands for."""
        if self._should_refetch and isinstance(item, Gap) and item.journaled:
            self._gap_fill = GapFill(self.subscription, item)
        else:
            self._ready.append(item)

    def _finish_sources(self) -> None:
        """Drop the reader of the journal once it has read everything that was wanted."""
        if self._replay is not None and self._replay.is_done:
            self._replay = None
            self._received.extend(self.subscription.release_held())
        if self._gap_fill is not None and self._gap_fill.is_done:
            self._gap_fill = None
