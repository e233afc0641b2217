"""Events: what is published, how a subscriber chooses, and how it sees that it has missed something."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Encoder

from ostler.clock import Clock
from ostler.errors import BadEnvelope, EncodeFailed, InvalidInput, NotPermitted, OstlerError
from ostler.messaging.access import Access
from ostler.messaging.envelope import (
    MAX_SIZE,
    VERSION,
    Accepted,
    Failure,
    check_size,
    decode_to_client,
    encode_failure,
    encode_message,
    encode_value,
    error_of,
)
from ostler.messaging.quiet import QuietLog
from ostler.messaging.transport import CONTROL_PREFIX, Data, EventLink
from ostler.types import Json, Peer, Role

_log = logging.getLogger(__name__)
_END_OF_KEY = b"\0"
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$")


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened: `topic.host.name`.

    `number` counts the events of this topic on this host since the publisher began, which is its `epoch`; `at` is wall
    time in seconds.
    """

    topic: str
    host: str
    name: str
    payload: Any
    number: int
    epoch: int
    at: float

    @property
    def key(self) -> str:
        """The name it is subscribed to by: `topic.host.name`."""
        return f"{self.topic}.{self.host}.{self.name}"


class Gap(NamedTuple):
    """Events that this subscriber has missed: numbers `first` to `last` of a topic on a host, those included.

    Not all of them need have fitted the subscriber's pattern. When the publisher has begun anew, nobody knows how many
    are missing: `first` and `last` are 0.
    """

    topic: str
    host: str
    first: int
    last: int


Stream: TypeAlias = Event | Gap


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


class Publisher:
    """Publishes events over one transport, numbered by topic.

    Args:
        link: The publisher's end of the transport.
        host: The host that events are from.
        clock: The source of time.
        access: Who may subscribe: each role may; a reload puts another in its place.
        post: Brings a callable from any thread to the loop.
        max_message_size: The size limit in bytes.
    """

    def __init__(
        self,
        link: EventLink,
        host: str,
        clock: Clock,
        access: Access,
        post: Any,
        *,
        max_message_size: int = MAX_SIZE,
    ) -> None:
        self.link = link
        self.host = host
        self.access = access
        self.epoch = int(clock.wall() * 1000)
        self.published = 0
        self.refused = 0
        self.garbage: Counter[str] = Counter()
        self._clock = clock
        self._post = post
        self._limit = max_message_size
        self._numbers: dict[str, int] = {}
        self._thread = 0
        self._closed = False
        self._quiet = QuietLog(_log, clock)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.link.address

    def start(self) -> None:
        """Begin to take subscribers. On the loop's thread."""
        self._thread = threading.get_ident()
        self.link.on_garbage = self._count
        self.link.start(self._admit, self._answer)

    def close(self) -> None:
        """Stop publishing; later events are dropped. On the loop's thread. May be called twice."""
        self._closed = True
        self.link.close()

    def publish(self, topic: str, name: str, payload: Json = None) -> None:
        """Publish an event. Any thread; it is sent from the loop.

        Raises:
            InvalidInput: A name has characters that keys cannot have.
            EncodeFailed: The payload cannot go over the wire.
            MessageTooLarge: It is too large.
        """
        for part in (topic, name):
            if not _NAME.match(part):
                raise InvalidInput(
                    f"{part!r} cannot be part of an event's name", hint="use letters, digits and `_ . : @ -`"
                )
        key = f"{topic}.{self.host}.{name}"
        packed = check_size(encode_value(payload, f"the payload of event {key}"), self._limit, f"the event {key}")
        if threading.get_ident() == self._thread:
            self._send(topic, name, packed)
        else:
            self._post(lambda: self._send(topic, name, packed))

    def tell_fanout(self, topic: str, method: str, request_id: str) -> None:
        """Publish `fanout.TOPIC` for a fanout that was accepted here. Its arguments stay out: viewers may listen."""
        self.publish(f"fanout.{topic}", method, {"request_id": request_id})

    def stats(self) -> dict[str, Any]:
        """Return the counters: events published, subscriptions refused, garbage by reason."""
        return {"published": self.published, "refused": self.refused, "garbage": dict(self.garbage)}

    def _send(self, topic: str, name: str, packed: bytes) -> None:
        if self._closed:
            return
        number = self._numbers[topic] = self._numbers.get(topic, 0) + 1
        event = Event(topic, self.host, name, msgspec.Raw(packed), number, self.epoch, self._clock.wall())
        self.published += 1
        self.link.publish(event.key.encode() + _END_OF_KEY + _encoder.encode((VERSION, event)))

    def _admit(self, peer: Peer) -> bool:
        if self.access.role_of(peer) is not None:
            return True
        self.refused += 1
        self._quiet.warning("subscription", f"{peer.name} may not subscribe to events: it has no role")
        return False

    def _count(self, peer: Peer, reason: str, what: str) -> None:
        self.garbage[reason] += 1
        self._quiet.warning(reason, f"{peer.name} sent what is no subscription ({reason}): {what}")

    def _answer(self, peer: Peer) -> bytes:
        if self.access.role_of(peer) is not None:
            return encode_message(Accepted(VERSION, 0, 1))
        refusal = NotPermitted(
            f"events need the role {Role.VIEWER}: {peer.name} may not subscribe, it has no role here",
            hint="an administrator gives it in [access]",
            needs=str(Role.VIEWER),
            uid=peer.uid,
        )
        return encode_failure(None, refusal)


class Subscription:
    """A subscriber's side of things, without I/O: chooses events, finds gaps, knows when it has been admitted.

    Args:
        patterns: What is wanted; an event that fits one of them is.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [Pattern(text) for text in patterns] or [Pattern("")]
        self._question = CONTROL_PREFIX + os.urandom(8).hex().encode()
        self._last: dict[tuple[str, str], tuple[int, int]] = {}
        self.admitted = False
        self.garbage = 0

    @property
    def prefixes(self) -> list[bytes]:
        """What to subscribe to, in this order: the answer to the last one says that all of them stand."""
        return [*dict.fromkeys(pattern.prefix for pattern in self._patterns), self._question]

    def receive(self, data: Data) -> list[Stream]:
        """Take a message; return what the subscriber is to see of it.

        Raises:
            NotPermitted: The peer may not subscribe.
        """
        key, _, body = bytes(data).partition(_END_OF_KEY)
        try:
            if key.startswith(CONTROL_PREFIX):
                self._take_answer(key, body)
                return []
            version, event = _decoder.decode(body)
        except (BadEnvelope, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.garbage += 1
            return []
        if version != VERSION:
            self.garbage += 1
            return []
        found: list[Stream] = []
        if (gap := self._gap(event)) is not None:
            found.append(gap)
        if any(pattern.fits(event) for pattern in self._patterns):
            found.append(event)
        return found

    def _take_answer(self, key: bytes, body: bytes) -> None:
        if key != self._question:  # whoever subscribes to all sees the answers to others too
            return
        answer = decode_to_client(body)
        if isinstance(answer, Failure):
            raise error_of(answer)
        self.admitted = True

    def _gap(self, event: Event) -> Gap | None:
        source = (event.topic, event.host)
        epoch, last = self._last.get(source, (event.epoch, event.number - 1))
        self._last[source] = (event.epoch, event.number)
        if epoch != event.epoch:
            return Gap(event.topic, event.host, 0, 0)
        return Gap(event.topic, event.host, last + 1, event.number - 1) if event.number > last + 1 else None


_encoder = Encoder()
_decoder: Decoder[tuple[int, Event]] = Decoder(tuple[int, Event])

__all__ = ["EncodeFailed", "Event", "Gap", "OstlerError", "Pattern", "Publisher", "Stream", "Subscription"]
