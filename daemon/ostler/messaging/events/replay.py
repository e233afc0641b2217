"""Reading the journal before, or between, what comes live: without I/O, for both clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ostler.errors import InvalidInput
from ostler.messaging.events.event import (
    JOURNALED,
    Event,
    Gap,
    JournalPage,
    JournalPosition,
    JournalStart,
    JournalTopic,
    StreamItem,
    Watermark,
)

if TYPE_CHECKING:
    from ostler.messaging.events.subscription import Subscription

Since: TypeAlias = int | Event | Iterable[Event] | Mapping[str, int]
PAGE_SIZE = 500
"""Events asked for at once."""


class Replay:
    """Brings a subscription from some numbers to the end of the journal; live events follow without gap or overlap.

    The subscription is established already, and live events are held back. The driver of this asks the daemon what
    `next_request` returns, hands the answer to `apply_reply`, and gives its user what that returns, until `is_done`.

    Args:
        subscription: What is to be brought up to date.
        since: The first number wanted, of each journaled topic that the subscription covers; or the last events that
            were seen, one of a topic: what came after them is wanted; or topic to the number of that event, for who has
            kept no more of it. Topics that are not named begin with live events.

    Raises:
        InvalidInput: The number is below 1, or one of a topic below 0.
    """

    def __init__(self, subscription: Subscription, since: Since) -> None:
        self._subscription = subscription
        self._positions: dict[str, JournalPosition] | None = None
        self._last_seen: list[Event] = []
        self._started_topics: set[str] = set()
        self._first_sequence = 0
        self._last_numbers: Mapping[str, int] | None = None
        if isinstance(since, Mapping):
            self._last_numbers = _checked_numbers(since)
        elif isinstance(since, int):
            if since < 1:
                raise InvalidInput(f"events are numbered from 1, {since} is not a valid number")
            self._first_sequence = since
        else:
            self._last_seen = [since] if isinstance(since, Event) else list(since)
            kept = [event for event in self._last_seen if event.journaled]
            self._positions = {event.topic: JournalPosition(event.topic, event.sequence, event.epoch) for event in kept}

    @property
    def is_done(self) -> bool:
        """Whether the end of the journal is reached."""
        return self._positions is not None and not self._positions and not self._last_seen

    def next_request(self) -> tuple[str, dict[str, Any], Any]:
        """Return what to ask the daemon next: a method of the topic `ostler`, its arguments, the type of its result."""
        if self._positions is None:
            return "event_topics", {}, list[JournalTopic]
        return "events_since", {"positions": list(self._positions.values()), "limit": PAGE_SIZE}, JournalPage

    def apply_reply(self, reply: Any) -> list[StreamItem]:
        """Take the answer; return the events and gaps to be seen next."""
        if self._positions is None and self._last_numbers is not None:
            return self._start_after(self._last_numbers, {found.topic for found in reply})
        if self._positions is None:
            names = [found.topic for found in reply if self._subscription.covers(found.topic)]
            self._positions = {name: JournalPosition(name, self._first_sequence - 1) for name in names}
            return []
        page: JournalPage = reply
        found = self._unjournaled_gaps()
        for start in page.starts:
            found += self._start_topic(self._positions, start)
        for event in page.events:
            found += self._subscription.apply_event(event)
            self._positions[event.topic] = JournalPosition(event.topic, event.sequence)
        if not page.more:
            # What the journal does not have at its end is a gap, too.
            for start in page.starts:
                found += self._subscription.apply_watermark(
                    Watermark(start.topic, start.host, start.last, 0, JOURNALED)
                )
            self._positions = {}
        return found

    def _start_after(self, numbers: Mapping[str, int], journaled: set[str]) -> list[StreamItem]:
        """Begin after these numbers; return what was missed of topics that no journal has, as far as it is known.

        A number does not say which run of the publisher has given it: below the last one it counts as of the same run.
        """
        wanted = {topic: number for topic, number in numbers.items() if self._subscription.covers(topic)}
        self._positions = {topic: JournalPosition(topic, wanted[topic]) for topic in wanted if topic in journaled}
        gaps: list[StreamItem] = []
        for topic in sorted(wanted.keys() - journaled):
            hosts = {host: place for (name, host), place in self._subscription.cursors.items() if name == topic}
            if not hosts and wanted[topic]:
                gaps.append(Gap(topic, "", 0, 0))
            for host, place in hosts.items():
                if place.sequence > wanted[topic]:
                    gaps.append(Gap(topic, host, wanted[topic] + 1, place.sequence))
                elif place.sequence < wanted[topic]:
                    gaps.append(Gap(topic, host, 0, 0))
        return gaps

    def _unjournaled_gaps(self) -> list[StreamItem]:
        """Say what was missed of topics that are not journaled: the heads tell how much."""
        seen, self._last_seen = self._last_seen, []
        return [gap for event in seen if not event.journaled for gap in self._subscription.resume(event)]

    def _start_topic(self, positions: dict[str, JournalPosition], start: JournalStart) -> list[StreamItem]:
        """Put the subscription where reading of a topic begins, at the first page."""
        if start.topic in self._started_topics:
            return []
        self._started_topics.add(start.topic)
        asked = positions[start.topic]
        live = self._subscription.cursors.get((start.topic, start.host))
        # The publisher is beyond it in the same run: the event has gone out, and only the store is late.
        late = start.anew and live is not None and live.sequence >= asked.after and asked.epoch in (0, live.epoch)
        after = asked.after if late else start.after
        positions[start.topic] = JournalPosition(start.topic, after)
        self._subscription.rewind(start.topic, start.host, after)
        return [Gap(start.topic, start.host, 0, 0)] if start.anew and not late else []


def _checked_numbers(numbers: Mapping[str, int]) -> Mapping[str, int]:
    for topic, number in numbers.items():
        if type(number) is not int or number < 0:
            raise InvalidInput(f"the last number of {topic} that was seen is {number!r}; it must be 0 or more")
    return numbers


class GapFill:
    """Fetches the events of a gap from the journal; driven as `Replay` is. What is not there stays a gap.

    Args:
        subscription: What found the gap.
        gap: The gap, of a journaled topic.
    """

    def __init__(self, subscription: Subscription, gap: Gap) -> None:
        self._subscription = subscription
        self._gap = gap
        self._last_sequence = gap.first - 1
        self.is_done = False

    def next_request(self) -> tuple[str, dict[str, Any], Any]:
        """See `Replay.ask`."""
        limit = min(PAGE_SIZE, self._gap.last - self._last_sequence)
        return (
            "events_since",
            {"positions": [JournalPosition(self._gap.topic, self._last_sequence)], "limit": limit},
            JournalPage,
        )

    def apply_reply(self, page: JournalPage) -> list[StreamItem]:
        """See `Replay.take`."""
        found: list[StreamItem] = []
        for event in page.events:
            if event.sequence > self._gap.last:
                break
            found += self._gap_until(event.sequence - 1)
            self._last_sequence = event.sequence
            if self._subscription.matches(event):
                found.append(event)
        self.is_done = not page.more or not page.events or page.events[-1].sequence >= self._gap.last
        return found + self._gap_until(self._gap.last) if self.is_done else found

    def remaining_gap(self) -> list[StreamItem]:
        """Return the gap as far as it is not filled, when the journal cannot be asked."""
        return [self._gap._replace(first=self._last_sequence + 1)]

    def _gap_until(self, last: int) -> list[StreamItem]:
        return (
            [self._gap._replace(first=self._last_sequence + 1, last=last, journaled=False)]
            if last > self._last_sequence
            else []
        )
