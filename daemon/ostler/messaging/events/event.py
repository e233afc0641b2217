"""Events and gaps as a subscriber sees them, and the patterns that choose them. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Encoder

NOT_JOURNALED: Final = 0
"""`Event.kept`: the topic is not journaled."""
JOURNALED: Final = 1
"""`Event.kept`: it was in the journal before it went out."""
JOURNALED_LATE: Final = 2
"""`Event.kept`: the journal could not be written in time; it is written later, or shows a hole there."""

LAST_VALUE: Final = 20
"""The kind of a frame that answers a question: the last event of one key, `[20, 1, event]`."""
WATERMARKS: Final = 21
"""The kind of a frame with the last numbers of topics: `[21, 1, [[topic, host, number, epoch, kept], …]]`."""

KEY_TERMINATOR: Final = b"\0"
WATERMARK_KEY: Final = b"!"
"""What stands in the place of an event's name in the key of a frame with a head; no name can begin so."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened: `topic.host.name`.

    `sequence` counts the events of this topic on this host, and `epoch` names the run of the publisher that gave the
    number. On a plain topic numbers start again with each run, on a journaled one (`journaled` is not 0) they go on.
    `at` is
    wall time in seconds. `request_id` and `trace` are those of the request in which it happened, empty outside of one;
    `priority` is that of a notification, else empty.
    """

    topic: str
    host: str
    name: str
    payload: Any
    sequence: int
    epoch: int
    at: float
    request_id: str = ""
    trace: str = ""
    priority: str = ""
    journaled: int = NOT_JOURNALED

    @property
    def key(self) -> str:
        """The name it is subscribed to by: `topic.host.name`."""
        return f"{self.topic}.{self.host}.{self.name}"


class Gap(NamedTuple):
    """Events that this subscriber has missed: numbers `first` to `last` of a topic on a host, those included.

    Not all of them need have fitted the subscriber's pattern. When the publisher has started again, nobody knows how
    many are missing: `first` and `last` are 0. With `journaled` the topic is journaled, and the journal may still have
    them.
    """

    topic: str
    host: str
    first: int
    last: int
    journaled: bool = False


StreamItem: TypeAlias = Event | Gap


class Watermark(NamedTuple):
    """The last number that has gone out on a topic, with its epoch and whether the topic is journaled."""

    topic: str
    host: str
    sequence: int
    epoch: int
    journaled: int


class JournalPosition(msgspec.Struct, frozen=True, array_like=True):
    """Where to begin reading in the journal: after this number of a topic, as the run `epoch` gave it.

    Epoch 0 means the number as it stands in the journal, whichever run gave it.
    """

    topic: str
    after: int = 0
    epoch: int = 0


class JournalTopic(msgspec.Struct, frozen=True, array_like=True):
    """A journaled topic: the lowest and the highest number that are kept; `first` is above `last` when none is."""

    topic: str
    host: str
    first: int
    last: int
    epoch: int


class JournalStart(msgspec.Struct, frozen=True, array_like=True):
    """Where reading of a topic really begins: after `after`.

    With `anew` the position was behind the end of what the journal knows of that run (its last writes were lost, or a
    copy of the database was put back): nobody knows how many events are missing between the two.
    """

    topic: str
    host: str
    after: int
    last: int
    anew: bool


class JournalPage(msgspec.Struct, frozen=True, array_like=True):
    """A part of the journal: where each topic begins, the next events of all of them, and whether there are more."""

    starts: list[JournalStart]
    events: list[Event]
    more: bool


class EventPattern:
    """Which events a subscriber wants: a key or its leading parts, with `*` for any run of characters.

    `volume` and `volume.*.created` choose events of the topic `volume`; an empty pattern or `*` chooses all.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        literal, star, _ = text.partition("*")
        # Only a subscriber of the whole topic sees all numbers; the rest is filtered here.
        first, dot, _ = literal.partition(".")
        self.prefix = (first + "." if dot or (first and not star) else first).encode()
        body = ".*".join(re.escape(part) for part in text.rstrip(".").split("*"))
        self._match = re.compile(rf"{body}(\..*)?" if text else ".*", re.DOTALL).fullmatch

    def matches(self, event: Event) -> bool:
        """Return whether the event is wanted."""
        return self._match(event.key) is not None


class TopicPatterns:
    """Which topics are journaled: names of topics with `*` for any run of characters; `!name` takes some out again."""

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self._included = _any_of(text for text in texts if not text.startswith("!"))
        self._excluded = _any_of(text[1:] for text in texts if text.startswith("!"))

    def matches(self, topic: str) -> bool:
        """Return whether the topic is one of them."""
        return self._included(topic) is not None and self._excluded(topic) is None


def _any_of(texts: Iterable[str]) -> Callable[[str], object]:
    bodies = [".*".join(re.escape(part) for part in text.split("*")) for text in texts]
    return re.compile("|".join(bodies), re.DOTALL).fullmatch if bodies else lambda _text: None


encoder = Encoder()
event_decoder: Decoder[tuple[int, Event]] = Decoder(tuple[int, Event])
