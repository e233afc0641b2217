"""Reading the journal before, or between, what comes live: without I/O, for both clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from ostler.errors import InvalidInput
from ostler.messaging.events.event import (
    KEPT,
    Event,
    Gap,
    Head,
    JournalPage,
    JournalStart,
    JournalTopic,
    Position,
    Seen,
)

if TYPE_CHECKING:
    from ostler.messaging.events.subscription import Subscription

Since: TypeAlias = int | Event | Iterable[Event]
PAGE = 500
"""Events asked for at once."""


class Replay:
    """Brings a subscription from some numbers to the end of the journal; the live events follow without a seam.

    The subscription stands already, and what comes live is held back. Whoever drives this asks the daemon what `ask`
    says, hands the answer to `take`, and gives its user what that returns, until `done`.

    Args:
        subscription: What is to be brought up to date.
        since: The first number wanted, of each journaled topic that the subscription covers; or the last events that
            were seen, one of a topic: what came after them is wanted.

    Raises:
        InvalidInput: The number is below 1.
    """

    def __init__(self, subscription: Subscription, since: Since) -> None:
        self._subscription = subscription
        self._positions: dict[str, Position] | None = None
        self._seen: list[Event] = []
        self._begun: set[str] = set()
        self._first = 0
        if isinstance(since, int):
            if since < 1:
                raise InvalidInput(f"events are numbered from 1, there is none with the number {since}")
            self._first = since
        else:
            self._seen = [since] if isinstance(since, Event) else list(since)
            kept = [event for event in self._seen if event.kept]
            self._positions = {event.topic: Position(event.topic, event.number, event.epoch) for event in kept}

    @property
    def done(self) -> bool:
        """Whether the end of the journal is reached."""
        return self._positions is not None and not self._positions and not self._seen

    def ask(self) -> tuple[str, dict[str, Any], Any]:
        """Return what to ask the daemon next: a method of the topic `ostler`, its arguments, the type of its result."""
        if self._positions is None:
            return "event_topics", {}, list[JournalTopic]
        return "events_since", {"positions": list(self._positions.values()), "limit": PAGE}, JournalPage

    def take(self, answer: Any) -> list[Seen]:
        """Take the answer; return the events and gaps to be seen next."""
        if self._positions is None:
            names = [found.topic for found in answer if self._subscription.covers(found.topic)]
            self._positions = {name: Position(name, self._first - 1) for name in names}
            return []
        page: JournalPage = answer
        found = self._plain()
        for start in page.starts:
            found += self._begin(self._positions, start)
        for event in page.events:
            found += self._subscription.step(event)
            self._positions[event.topic] = Position(event.topic, event.number)
        if not page.more:
            # What the journal does not have at its end is a gap, too.
            for start in page.starts:
                found += self._subscription.go_to(Head(start.topic, start.host, start.last, 0, KEPT))
            self._positions = {}
        return found

    def _plain(self) -> list[Seen]:
        """Say what was missed of topics that are not journaled: the heads tell how much."""
        seen, self._seen = self._seen, []
        return [gap for event in seen if not event.kept for gap in self._subscription.resume(event)]

    def _begin(self, positions: dict[str, Position], start: JournalStart) -> list[Seen]:
        """Put the subscription where reading of a topic begins, at the first page."""
        if start.topic in self._begun:
            return []
        self._begun.add(start.topic)
        asked = positions[start.topic]
        live = self._subscription.places.get((start.topic, start.host))
        # The publisher is beyond it in the same run: the event has gone out, and only the store is late.
        late = start.anew and live is not None and live.number >= asked.after and asked.epoch in (0, live.epoch)
        after = asked.after if late else start.after
        positions[start.topic] = Position(start.topic, after)
        self._subscription.go_back(start.topic, start.host, after)
        return [Gap(start.topic, start.host, 0, 0)] if start.anew and not late else []


class Refill:
    """Fetches the events of a gap from the journal; driven as `Replay` is. What is not there stays a gap.

    Args:
        subscription: What found the gap.
        gap: The gap, of a journaled topic.
    """

    def __init__(self, subscription: Subscription, gap: Gap) -> None:
        self._subscription = subscription
        self._gap = gap
        self._number = gap.first - 1
        self.done = False

    def ask(self) -> tuple[str, dict[str, Any], Any]:
        """See `Replay.ask`."""
        limit = min(PAGE, self._gap.last - self._number)
        return "events_since", {"positions": [Position(self._gap.topic, self._number)], "limit": limit}, JournalPage

    def take(self, page: JournalPage) -> list[Seen]:
        """See `Replay.take`."""
        found: list[Seen] = []
        for event in page.events:
            if event.number > self._gap.last:
                break
            found += self._missing(event.number - 1)
            self._number = event.number
            if self._subscription.wants(event):
                found.append(event)
        self.done = not page.more or not page.events or page.events[-1].number >= self._gap.last
        return found + self._missing(self._gap.last) if self.done else found

    def rest(self) -> list[Seen]:
        """Return the gap as far as it is not filled, when the journal cannot be asked."""
        return [self._gap._replace(first=self._number + 1)]

    def _missing(self, last: int) -> list[Seen]:
        return [self._gap._replace(first=self._number + 1, last=last, kept=False)] if last > self._number else []
