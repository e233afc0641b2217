"""What one subscription has for its reader, without I/O: both event streams are built on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ostler.errors import ConnectionLost, InvalidInput, OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.transport import Data

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Refill, Replay, Since


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


class EventFeed:
    """The items of one subscription in their order: what the journal has first, then what comes live.

    Whoever drives it hands over what comes (`receive`), gives its reader what `pop` returns, and when that is None asks
    the daemon what `question` says, and answers with `answer` or `fail`. One thread at a time.

    Args:
        subscription: What was subscribed to.
        replay: Reads the journal before the live events; None when only these are wanted.
        refetch: Whether the events of a gap are fetched from the journal, where it has them.
    """

    def __init__(self, subscription: Subscription, replay: Replay | None = None, *, refetch: bool = False) -> None:
        self.subscription = subscription
        self._replay = replay
        self._refill: Refill | None = None
        self._refetch = refetch
        self._ready: deque[Event | Gap] = deque()
        self._found: deque[Event | Gap] = deque()

    @property
    def waiting(self) -> int:
        """How many live items wait for the reader."""
        return len(self._found) + self.subscription.held

    def receive(self, data: Data) -> None:
        """Take what came from a publisher.

        Raises:
            OstlerError: The subscription was refused.
        """
        self._found.extend(self.subscription.receive(data))

    def pop(self) -> Event | Gap | None:
        """Return the next item; None when there is none, or when the journal has to be asked first."""
        while not self._ready and self._found and self._replay is None and self._refill is None:
            self._sort(self._found.popleft())
        return self._ready.popleft() if self._ready else None

    def question(self) -> tuple[str, dict[str, Any], Any] | None:
        """Return what to ask the daemon: a method of the topic `ostler`, its arguments, its type; None for nothing."""
        self._go_on()
        source = self._replay or self._refill
        return None if source is None else source.ask()

    def answer(self, answer: Any) -> None:
        """Take the answer to the last `question`."""
        source = self._replay or self._refill
        if source is not None:
            self._ready.extend(source.take(answer))
            self._go_on()

    def fail(self, error: OstlerError) -> None:
        """Take note that the last `question` got no answer.

        Raises:
            OstlerError: The same; the reader has to know, for it began with what the journal has.
        """
        if self._replay is not None:
            raise error
        if self._refill is not None:  # the gap is no secret: it is seen, and can be asked for again
            self._ready.extend(self._refill.rest())
            self._refill = None

    def ask_no_more(self) -> None:
        """Give the reader what is there already, gaps as they are: nobody can be asked any more."""
        if self._refill is not None:
            self._ready.extend(self._refill.rest())
        self._replay = self._refill = None
        self._refetch = False

    def unanswered(self) -> ConnectionLost:
        """Return the error of a subscription that the daemon has not answered in time."""
        return ConnectionLost(
            f"the daemon did not answer a subscription within {self.subscription.patience:g} s",
            hint="see `systemctl status ostler` and the daemon's log",
        )

    def _sort(self, item: Event | Gap) -> None:
        """Give an item to the reader, or fetch first what a gap stands for."""
        if self._refetch and isinstance(item, Gap) and item.kept:
            from ostler.messaging.events.replay import Refill

            self._refill = Refill(self.subscription, item)
        else:
            self._ready.append(item)

    def _go_on(self) -> None:
        """Let go of what has read the journal to the end of what was wanted."""
        if self._replay is not None and self._replay.done:
            self._replay = None
            self._found.extend(self.subscription.release())
        if self._refill is not None and self._refill.done:
            self._refill = None
