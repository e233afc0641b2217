"""Events and gaps as a subscriber sees them, and the patterns that choose them. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Encoder

PLAIN: Final = 0
"""`Event.kept`: the topic is not journaled."""
KEPT: Final = 1
"""`Event.kept`: it was in the journal before it went out."""
LATE: Final = 2
"""`Event.kept`: the journal could not be written in time; it is written later, or shows a hole there."""

LAST_EVENT: Final = 20
"""The kind of a frame that answers a question: the last event of one key, `[20, 1, event]`."""
HEADS: Final = 21
"""The kind of a frame with the last numbers of topics: `[21, 1, [[topic, host, number, epoch, kept], …]]`."""

END_OF_KEY: Final = b"\0"
HEAD_KEY: Final = b"!"
"""What stands in the place of an event's name in the key of a frame with a head; no name can begin so."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened: `topic.host.name`.

    `number` counts the events of this topic on this host, and `epoch` names the run of the publisher that gave the
    number. On a plain topic numbers begin anew with each run, on a journaled one (`kept` is not 0) they go on. `at` is
    wall time in seconds. `request_id` and `trace` are those of the request in which it happened, empty outside of one;
    `priority` is that of a notification, else empty.
    """

    topic: str
    host: str
    name: str
    payload: Any
    number: int
    epoch: int
    at: float
    request_id: str = ""
    trace: str = ""
    priority: str = ""
    kept: int = PLAIN

    @property
    def key(self) -> str:
        """The name it is subscribed to by: `topic.host.name`."""
        return f"{self.topic}.{self.host}.{self.name}"


class Gap(NamedTuple):
    """Events that this subscriber has missed: numbers `first` to `last` of a topic on a host, those included.

    Not all of them need have fitted the subscriber's pattern. When the publisher has begun anew, nobody knows how many
    are missing: `first` and `last` are 0. With `kept` the topic is journaled, and the journal may still have them.
    """

    topic: str
    host: str
    first: int
    last: int
    kept: bool = False


Seen: TypeAlias = Event | Gap


class Head(NamedTuple):
    """The last number that has gone out on a topic, with its epoch and whether the topic is journaled."""

    topic: str
    host: str
    number: int
    epoch: int
    kept: int


class Position(msgspec.Struct, frozen=True, array_like=True):
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


class Pattern:
    """Which events a subscriber wants: a key or its leading parts, with `*` for any run of characters.

    `volume` and `volume.*.created` choose events of the topic `volume`; an empty pattern or `*` chooses all.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        literal, star, _ = text.partition("*")
        # The numbers of a topic have no holes only for who gets the whole topic; the rest is chosen here.
        first, dot, _ = literal.partition(".")
        self.prefix = (first + "." if dot or (first and not star) else first).encode()
        body = ".*".join(re.escape(part) for part in text.rstrip(".").split("*"))
        self._fits = re.compile(rf"{body}(\..*)?" if text else ".*", re.DOTALL).fullmatch

    def fits(self, event: Event) -> bool:
        """Return whether the event is wanted."""
        return self._fits(event.key) is not None


class TopicPatterns:
    """Which topics are journaled: names of topics with `*` for any run of characters; `!name` takes some out again."""

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self._fits = _any_of(text for text in texts if not text.startswith("!"))
        self._but = _any_of(text[1:] for text in texts if text.startswith("!"))

    def fits(self, topic: str) -> bool:
        """Return whether the topic is one of them."""
        return self._fits(topic) is not None and self._but(topic) is None


def _any_of(texts: Iterable[str]) -> Callable[[str], object]:
    bodies = [".*".join(re.escape(part) for part in text.split("*")) for text in texts]
    return re.compile("|".join(bodies), re.DOTALL).fullmatch if bodies else lambda _text: None


encoder = Encoder()
event_decoder: Decoder[tuple[int, Event]] = Decoder(tuple[int, Event])
