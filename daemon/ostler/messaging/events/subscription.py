"""A subscriber's side of events, without I/O: the subscription, and the feed that both event streams are built on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Decoder

from ostler.errors import ConnectionLost, InvalidInput, MalformedMessage, MessageTooLarge, OstlerError
from ostler.messaging.events.event import (
    JOURNALED,
    KEY_TERMINATOR,
    LAST_VALUE,
    WATERMARK_KEY,
    WATERMARKS,
    Event,
    EventPattern,
    Gap,
    StreamItem,
    Watermark,
    event_decoder,
)
from ostler.messaging.wire.envelope import (
    MAX_REPLY_ELEMENTS,
    PROTOCOL_VERSION,
    Failure,
    check_elements,
    decode_to_client,
    error_from_failure,
)
from ostler.messaging.wire.transport import CONTROL_PREFIX, Data
from ostler.time_text import format_seconds

if TYPE_CHECKING:
    from ostler.messaging.events.replay import GapFill, Replay, Since


_MAX_QUESTION_SIZE = 500
"""Bytes of a question; a publisher takes no longer subscription."""
_DECODE_ERRORS = (MalformedMessage, MessageTooLarge, msgspec.DecodeError, RecursionError, UnicodeDecodeError)
ADMISSION_TIMEOUT = 10.0
"""Seconds that a daemon has to answer a subscription."""
MAX_WAITING_EVENTS = 20_000
"""Events that wait for the reader of a stream on a loop; more are dropped, and seen as a gap."""
MAX_EARLY_BYTES = 128 * 1024 * 1024
"""Bytes that may come before the answer to a subscription: the last events of all keys do."""
_watermarks_decoder: Decoder[tuple[int, int, list[Watermark]]] = Decoder(tuple[int, int, list[Watermark]])
_last_value_decoder: Decoder[tuple[int, int, Event]] = Decoder(tuple[int, int, Event])


class Cursor:
    """How far a subscriber is with one topic of one host."""

    __slots__ = ("epoch", "journaled", "sequence")

    def __init__(self, sequence: int, epoch: int, journaled: int) -> None:
        self.sequence = sequence
        self.epoch = epoch
        self.journaled = journaled


class Subscription:
    """A subscriber's side of things, without I/O: chooses events, finds gaps, knows when it has been admitted.

    Args:
        patterns: What is wanted; an event that fits one of them is.
        last: Whether the last event of each key is wanted first.
        hold: Whether to hold back what comes live until `release_held`: something else is to be seen first.
        timeout: Seconds that the daemon has to answer, `ADMISSION_TIMEOUT` at most; None for these.

    Raises:
        InvalidInput: The patterns are too many, or too long, for one question for last events.
    """

    def __init__(
        self, patterns: Iterable[str], *, last: bool = False, hold: bool = False, timeout: float | None = None
    ) -> None:
        self.admission_timeout = ADMISSION_TIMEOUT if timeout is None else min(ADMISSION_TIMEOUT, timeout)
        self._patterns = [EventPattern(text) for text in patterns] or [EventPattern("")]
        prefixes = list(dict.fromkeys(pattern.prefix for pattern in self._patterns))
        self._question = CONTROL_PREFIX + os.urandom(8).hex().encode()
        wanted = b"?" + (b"l" if last else b"") + b"\n" + b"\n".join(prefixes)
        if len(wanted) <= _MAX_QUESTION_SIZE - len(self._question):
            self._question += wanted
        elif last:
            raise InvalidInput(
                f"{len(prefixes)} patterns are too many to ask for their last events",
                hint="split them over several subscriptions",
            )
        self._prefixes = prefixes
        self.cursors: dict[tuple[str, str], Cursor] = {}
        self._is_holding = hold
        self._held: list[Event | Watermark] = []
        self._last_values: list[Event] = []
        self._watermarks: list[Watermark] = []
        self._has_watermarks = False
        self._early_bytes = 0
        self.is_admitted = False
        self.invalid_messages = 0

    @property
    def prefixes(self) -> list[bytes]:
        """What to subscribe to, in this order: the answer to the last one says that all of them stand."""
        return [*self._prefixes, self._question]

    def covers(self, topic: str) -> bool:
        """Return whether events of a topic may be wanted."""
        return f"{topic}.".encode().startswith(tuple(self._prefixes))

    def matches(self, event: Event) -> bool:
        """Return whether an event fits one of the patterns."""
        return any(pattern.matches(event) for pattern in self._patterns)

    def receive(self, data: Data) -> list[StreamItem]:
        """Take a message; return what the subscriber is to see of it.

        Raises:
            NotPermitted: The peer is not allowed to subscribe.
            MessageTooLarge: The publisher sends and sends, and does not answer the subscription.
        """
        if not self.is_admitted:
            self._count_early(len(data))
        key, _, body = bytes(data).partition(KEY_TERMINATOR)
        try:
            if len(body) > MAX_REPLY_ELEMENTS:
                check_elements(body, MAX_REPLY_ELEMENTS, "an event")
            if key.startswith(CONTROL_PREFIX):
                return self._handle_answer(key, body)
            if key.endswith(WATERMARK_KEY):
                return self._handle_watermarks(body)
            version, event = event_decoder.decode(body)
        except _DECODE_ERRORS:
            self.invalid_messages += 1
            return []
        if version != PROTOCOL_VERSION:
            self.invalid_messages += 1
            return []
        if self.is_admitted and not self._is_holding:
            return self.apply_event(event)
        self._held.append(event)  # last events come first, and they come with the answer
        return []

    def _count_early(self, size: int) -> None:
        self._early_bytes += size
        if self._early_bytes > MAX_EARLY_BYTES:
            raise MessageTooLarge(
                f"the publisher sent more than {MAX_EARLY_BYTES} bytes before it had answered the subscription",
                hint="subscribe to less at once", size=self._early_bytes, limit=MAX_EARLY_BYTES,
            )  # fmt: skip

    @property
    def held_count(self) -> int:
        """How many messages are held back."""
        return len(self._held)

    def release_held(self) -> list[StreamItem]:
        """Hold nothing back any more; return what was."""
        self._is_holding = False
        held, self._held = self._held, []
        return [
            seen
            for item in held
            for seen in (self.apply_event(item) if isinstance(item, Event) else self.apply_watermark(item))
        ]

    def apply_event(self, event: Event) -> list[StreamItem]:
        """Take the next event, live or from the journal; return what the subscriber is to see of it."""
        source = (event.topic, event.host)
        place = self.cursors.get(source)
        if place is None:
            found = self._start_topic(Watermark(*source, event.sequence - 1, event.epoch, event.journaled))
            self.cursors[source].sequence = event.sequence
            return [*found, event] if self.matches(event) else found
        found = []
        if place.epoch == event.epoch or (place.journaled and event.journaled):
            if event.sequence <= place.sequence:
                return []  # it was seen already, where the journal and the live events overlap
            if event.sequence > place.sequence + 1:
                found.append(Gap(*source, place.sequence + 1, event.sequence - 1, event.journaled != 0))
        else:
            found.append(Gap(*source, 0, 0))
        place.sequence, place.epoch, place.journaled = event.sequence, event.epoch, event.journaled
        if self.matches(event):
            found.append(event)
        return found

    def apply_watermark(self, head: Watermark) -> list[StreamItem]:
        """Take it that everything up to a number has gone out; return the gap if that has not been seen."""
        source = (head.topic, head.host)
        place = self.cursors.get(source)
        if place is None:
            return self._start_topic(head)
        if place.epoch != head.epoch and not (place.journaled and head.journaled):
            gap = Gap(*source, 0, 0)
        elif head.sequence > place.sequence:
            gap = Gap(*source, place.sequence + 1, head.sequence, head.journaled != 0)
        else:
            return []
        place.sequence, place.epoch, place.journaled = head.sequence, head.epoch, head.journaled
        return [gap]

    def _start_topic(self, head: Watermark) -> list[StreamItem]:
        """Begin with a topic of which nothing was known: after the subscription stood, or it would have had a head."""
        self.cursors[head.topic, head.host] = Cursor(head.sequence, head.epoch, head.journaled)
        began = self._has_watermarks and not head.journaled and head.sequence > 0
        return [Gap(head.topic, head.host, 1, head.sequence)] if began else []

    def rewind(self, topic: str, host: str, number: int) -> None:
        """Take it that a journaled topic has been seen up to a number, whatever came live."""
        self.cursors[topic, host] = Cursor(number, 0, JOURNALED)

    def resume(self, event: Event) -> list[StreamItem]:
        """Take it that this event of a plain topic was the last one seen; return the gap from it to what is live."""
        now = self.cursors.get((event.topic, event.host))
        self.cursors[event.topic, event.host] = Cursor(event.sequence, event.epoch, event.journaled)
        if now is None:
            return []
        return self.apply_watermark(Watermark(event.topic, event.host, now.sequence, now.epoch, now.journaled))

    def _handle_watermarks(self, body: bytes) -> list[StreamItem]:
        kind, version, heads = _watermarks_decoder.decode(body)
        if kind != WATERMARKS or version != PROTOCOL_VERSION:
            self.invalid_messages += 1
            return []
        heads = [head for head in heads if self.covers(head.topic)]
        if not self.is_admitted:
            self._watermarks += heads
        elif self._is_holding:
            self._held += heads
        else:
            return [gap for head in heads for gap in self.apply_watermark(head)]
        return []

    def _handle_answer(self, key: bytes, body: bytes) -> list[StreamItem]:
        if key != self._question:  # whoever subscribes to all sees the answers to others too
            return []
        kind = _message_kind(body)
        if kind == WATERMARKS:
            self._has_watermarks = True
            return self._handle_watermarks(body)
        if kind == LAST_VALUE:
            self._last_values.append(_last_value_decoder.decode(body)[2])
            return []
        answer = decode_to_client(body)
        if isinstance(answer, Failure):
            raise error_from_failure(answer)
        self.is_admitted = True
        return self._start()

    def _start(self) -> list[StreamItem]:
        """Begin with what the answer brought: last events that did not come live, and where each topic stands."""
        first: dict[tuple[str, str], int] = {}
        for item in self._held:
            if isinstance(item, Event):
                first.setdefault((item.topic, item.host), item.sequence)
        last, self._last_values = self._last_values, []
        heads, self._watermarks = self._watermarks, []
        for head in heads:
            number = first.get((head.topic, head.host), head.sequence + 1) - 1
            self.cursors[head.topic, head.host] = Cursor(number, head.epoch, head.journaled)
        found: list[StreamItem] = [
            event
            for event in last
            if self.matches(event) and event.sequence < first.get((event.topic, event.host), event.sequence + 1)
        ]
        return found if self._is_holding else found + self.release_held()


def _message_kind(body: bytes) -> int:
    return body[1] if len(body) > 1 and body[0] == 0x93 else 0  # [20 or 21, version, value]: an array of three


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
    from ostler.messaging.events.replay import Replay  # most subscribers read no journal

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

    def positions(self) -> list[Watermark]:
        """Return how far the reader is with each topic; empty while it has not been given all that was received."""
        if self._replay is not None or self._gap_fill is not None or self._ready or self.waiting_count:
            return []
        places = self.subscription.cursors.items()
        return [Watermark(*source, place.sequence, place.epoch, place.journaled) for source, place in places]

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
            f"the daemon did not answer a subscription within {format_seconds(self.subscription.admission_timeout)}",
            hint="see `systemctl status ostler` and the daemon's log",
        )

    def _deliver_or_refetch(self, item: Event | Gap) -> None:
        """Give an item to the reader, or fetch first what a gap stands for."""
        if self._should_refetch and isinstance(item, Gap) and item.journaled:
            from ostler.messaging.events.replay import GapFill  # as above

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
