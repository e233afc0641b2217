"""A subscriber's side of events, without I/O."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
from msgspec.msgpack import Decoder

from ostler.errors import BadEnvelope, InvalidInput, MessageTooLarge
from ostler.messaging.elements import ANSWER_ELEMENTS, check_elements
from ostler.messaging.envelope import VERSION, Failure, decode_to_client, error_of
from ostler.messaging.events.event import (
    END_OF_KEY,
    HEAD_KEY,
    HEADS,
    KEPT,
    LAST_EVENT,
    Event,
    Gap,
    Head,
    Pattern,
    Seen,
    event_decoder,
)
from ostler.messaging.transport import CONTROL_PREFIX, Data

_QUESTION_LIMIT = 500
"""Bytes of a question; a publisher takes no longer subscription."""
_UNREADABLE = (BadEnvelope, MessageTooLarge, msgspec.DecodeError, RecursionError, UnicodeDecodeError)
ADMISSION = 10.0
"""Seconds that a daemon has to answer a subscription."""
MOST_EARLY = 128 * 1024 * 1024
"""Bytes that may come before the answer to a subscription: the last events of all keys do."""
_heads: Decoder[tuple[int, int, list[Head]]] = Decoder(tuple[int, int, list[Head]])
_last: Decoder[tuple[int, int, Event]] = Decoder(tuple[int, int, Event])


class Place:
    """How far a subscriber is with one topic of one host."""

    __slots__ = ("epoch", "kept", "number")

    def __init__(self, number: int, epoch: int, kept: int) -> None:
        self.number = number
        self.epoch = epoch
        self.kept = kept


class Subscription:
    """A subscriber's side of things, without I/O: chooses events, finds gaps, knows when it has been admitted.

    Args:
        patterns: What is wanted; an event that fits one of them is.
        last: Whether the last event of each key is wanted first.
        hold: Whether to hold back what comes live until `release`: something else is to be seen first.
        timeout: Seconds that the daemon has to answer, `ADMISSION` at most; None for these.

    Raises:
        InvalidInput: The patterns are too many, or too long, for one question for last events.
    """

    def __init__(
        self, patterns: Iterable[str], *, last: bool = False, hold: bool = False, timeout: float | None = None
    ) -> None:
        self.patience = ADMISSION if timeout is None else min(ADMISSION, timeout)
        self._patterns = [Pattern(text) for text in patterns] or [Pattern("")]
        prefixes = list(dict.fromkeys(pattern.prefix for pattern in self._patterns))
        self._question = CONTROL_PREFIX + os.urandom(8).hex().encode()
        wanted = b"?" + (b"l" if last else b"") + b"\n" + b"\n".join(prefixes)
        if len(wanted) <= _QUESTION_LIMIT - len(self._question):
            self._question += wanted
        elif last:
            raise InvalidInput(
                f"{len(prefixes)} patterns are too many to ask for their last events",
                hint="make a subscription for each few of them",
            )
        self._prefixes = prefixes
        self.places: dict[tuple[str, str], Place] = {}
        self._hold = hold
        self._held: list[Event | Head] = []
        self._last: list[Event] = []
        self._heads: list[Head] = []
        self._told_heads = False
        self._early = 0
        self.admitted = False
        self.garbage = 0

    @property
    def prefixes(self) -> list[bytes]:
        """What to subscribe to, in this order: the answer to the last one says that all of them stand."""
        return [*self._prefixes, self._question]

    def covers(self, topic: str) -> bool:
        """Return whether events of a topic may be wanted."""
        return f"{topic}.".encode().startswith(tuple(self._prefixes))

    def wants(self, event: Event) -> bool:
        """Return whether an event fits one of the patterns."""
        return any(pattern.fits(event) for pattern in self._patterns)

    def receive(self, data: Data) -> list[Seen]:
        """Take a message; return what the subscriber is to see of it.

        Raises:
            NotPermitted: The peer may not subscribe.
            MessageTooLarge: The publisher sends and sends, and does not answer the subscription.
        """
        if not self.admitted:
            self._count_early(len(data))
        key, _, body = bytes(data).partition(END_OF_KEY)
        try:
            if len(body) > ANSWER_ELEMENTS:
                check_elements(body, ANSWER_ELEMENTS, "an event")
            if key.startswith(CONTROL_PREFIX):
                return self._take_answer(key, body)
            if key.endswith(HEAD_KEY):
                return self._take_heads(body)
            version, event = event_decoder.decode(body)
        except _UNREADABLE:
            self.garbage += 1
            return []
        if version != VERSION:
            self.garbage += 1
            return []
        if self.admitted and not self._hold:
            return self.step(event)
        self._held.append(event)  # last events come first, and they come with the answer
        return []

    def _count_early(self, size: int) -> None:
        self._early += size
        if self._early > MOST_EARLY:
            raise MessageTooLarge(
                f"the publisher sent more than {MOST_EARLY} bytes before it had answered the subscription",
                hint="subscribe to less at once", size=self._early, limit=MOST_EARLY,
            )  # fmt: skip

    @property
    def held(self) -> int:
        """How many messages are held back."""
        return len(self._held)

    def release(self) -> list[Seen]:
        """Hold nothing back any more; return what was."""
        self._hold = False
        held, self._held = self._held, []
        return [seen for item in held for seen in (self.step(item) if isinstance(item, Event) else self.go_to(item))]

    def step(self, event: Event) -> list[Seen]:
        """Take the next event, live or from the journal; return what the subscriber is to see of it."""
        source = (event.topic, event.host)
        place = self.places.get(source)
        if place is None:
            found = self._first(Head(*source, event.number - 1, event.epoch, event.kept))
            self.places[source].number = event.number
            return [*found, event] if self.wants(event) else found
        found = []
        if place.epoch == event.epoch or (place.kept and event.kept):
            if event.number <= place.number:
                return []  # it was seen already, before the seam between the journal and what is live
            if event.number > place.number + 1:
                found.append(Gap(*source, place.number + 1, event.number - 1, event.kept != 0))
        else:
            found.append(Gap(*source, 0, 0))
        place.number, place.epoch, place.kept = event.number, event.epoch, event.kept
        if self.wants(event):
            found.append(event)
        return found

    def go_to(self, head: Head) -> list[Seen]:
        """Take it that everything up to a number has gone out; return the gap if that has not been seen."""
        source = (head.topic, head.host)
        place = self.places.get(source)
        if place is None:
            return self._first(head)
        if place.epoch != head.epoch and not (place.kept and head.kept):
            gap = Gap(*source, 0, 0)
        elif head.number > place.number:
            gap = Gap(*source, place.number + 1, head.number, head.kept != 0)
        else:
            return []
        place.number, place.epoch, place.kept = head.number, head.epoch, head.kept
        return [gap]

    def _first(self, head: Head) -> list[Seen]:
        """Begin with a topic of which nothing was known: after the subscription stood, or it would have had a head."""
        self.places[head.topic, head.host] = Place(head.number, head.epoch, head.kept)
        began = self._told_heads and not head.kept and head.number > 0
        return [Gap(head.topic, head.host, 1, head.number)] if began else []

    def go_back(self, topic: str, host: str, number: int) -> None:
        """Take it that a journaled topic has been seen up to a number, whatever came live."""
        self.places[topic, host] = Place(number, 0, KEPT)

    def resume(self, event: Event) -> list[Seen]:
        """Take it that this event of a plain topic was the last one seen; return the gap from it to what is live."""
        now = self.places.get((event.topic, event.host))
        self.places[event.topic, event.host] = Place(event.number, event.epoch, event.kept)
        if now is None:
            return []
        return self.go_to(Head(event.topic, event.host, now.number, now.epoch, now.kept))

    def _take_heads(self, body: bytes) -> list[Seen]:
        kind, version, heads = _heads.decode(body)
        if kind != HEADS or version != VERSION:
            self.garbage += 1
            return []
        heads = [head for head in heads if self.covers(head.topic)]
        if not self.admitted:
            self._heads += heads
        elif self._hold:
            self._held += heads
        else:
            return [gap for head in heads for gap in self.go_to(head)]
        return []

    def _take_answer(self, key: bytes, body: bytes) -> list[Seen]:
        if key != self._question:  # whoever subscribes to all sees the answers to others too
            return []
        kind = _kind_of(body)
        if kind == HEADS:
            self._told_heads = True
            return self._take_heads(body)
        if kind == LAST_EVENT:
            self._last.append(_last.decode(body)[2])
            return []
        answer = decode_to_client(body)
        if isinstance(answer, Failure):
            raise error_of(answer)
        self.admitted = True
        return self._begin()

    def _begin(self) -> list[Seen]:
        """Begin with what the answer brought: last events that did not come live, and where each topic stands."""
        first: dict[tuple[str, str], int] = {}
        for item in self._held:
            if isinstance(item, Event):
                first.setdefault((item.topic, item.host), item.number)
        last, self._last = self._last, []
        heads, self._heads = self._heads, []
        for head in heads:
            number = first.get((head.topic, head.host), head.number + 1) - 1
            self.places[head.topic, head.host] = Place(number, head.epoch, head.kept)
        found: list[Seen] = [
            event
            for event in last
            if self.wants(event) and event.number < first.get((event.topic, event.host), event.number + 1)
        ]
        return found if self._hold else found + self.release()


def _kind_of(body: bytes) -> int:
    return body[1] if len(body) > 1 and body[0] == 0x93 else 0  # [20 or 21, version, value]: an array of three
