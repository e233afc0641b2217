"""The publisher: numbers events, sends them, knows the last ones, and tells who may subscribe."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter, deque
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.bounds import NAME_LIMIT, cut
from ostler.clock import Clock
from ostler.errors import InvalidInput, NotPermitted, check_length
from ostler.messaging.access import Access
from ostler.messaging.context import current_context
from ostler.messaging.envelope import (
    MAX_SIZE,
    VERSION,
    Accepted,
    check_size,
    encode_failure,
    encode_message,
    encode_value,
)
from ostler.messaging.events.event import END_OF_KEY, HEAD_KEY, HEADS, PLAIN, Head, encoder
from ostler.messaging.events.last import LastEvents
from ostler.messaging.quiet import QuietLog
from ostler.messaging.transport import EventLink, OnRefused, ignore_refused
from ostler.redaction import SECRETS
from ostler.types import Json, Peer, Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ostler.messaging.context import Context

    class Keeper(Protocol):
        """The journal, as the publisher knows it."""

        def take(self, route: Route, packed: bytes, at: float, tail: bytes) -> None:
            """Number an event, keep it, and send it. Never waits."""

        def retire(self, topic: Topic) -> None:
            """Keep no more events of a topic."""

        def stats(self) -> dict[str, int]:
            """Return the counters."""


_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*").fullmatch
_ROUTES_LIMIT = 10_000
_HEADS_EVERY = 3.0
"""Seconds between two heads: so soon a subscriber learns that the last events did not reach it."""
_HEADS_LIMIT = 1000
_BEFORE = b"\x92" + encoder.encode(VERSION) + b"\x9b"
"""How a message begins: an array of the version and an event, which is an array of eleven."""
_numbers = Struct(">cQcQcd").pack
_NO_TAIL = b"\xa0\xa0\xa0"
"""An event's `request_id`, `trace` and `priority` outside of a request."""
_PLAIN = encoder.encode(PLAIN)


class Topic:
    """What the publisher knows of a topic: its last number, the last one that has gone out, and its epoch."""

    __slots__ = ("epoch", "journaled", "kept", "name", "number", "sent", "told")

    def __init__(self, name: str, epoch: int, journaled: bool) -> None:
        self.name = name
        self.number = 0
        self.sent = 0
        self.epoch = epoch
        self.journaled = journaled
        self.kept = PLAIN
        self.told = False


class Route(NamedTuple):
    """What never changes of the events of one key: the topic, the key, the bytes before the payload."""

    topic: Topic
    key: bytes
    start: bytes


class EventLimits(NamedTuple):
    """How many last events are kept for late joiners, and how many bytes of them."""

    last_count: int = 1000
    last_size: int = 1024 * 1024


class Publisher:
    """Publishes events over one transport, numbered by topic.

    Args:
        link: The publisher's end of the transport.
        host: The host that events are from.
        clock: The source of time.
        access: Who may subscribe: each role may; a reload puts another in its place.
        post: Brings a callable from any thread to the loop.
        max_message_size: The size limit in bytes.
        limits: What is kept for late joiners.
    """

    def __init__(
        self,
        link: EventLink,
        host: str,
        clock: Clock,
        access: Access,
        post: Callable[[Callable[[], None]], None],
        *,
        max_message_size: int = MAX_SIZE,
        limits: EventLimits | None = None,
    ) -> None:
        self.link = link
        self.host = host
        self.access = access
        self.epoch = int(clock.wall() * 1000)
        self.published = 0
        self.refused = 0
        self.on_refused: OnRefused = ignore_refused
        self.garbage: Counter[str] = Counter()
        self.last = LastEvents(*(limits or EventLimits()), host)
        self.journal: Keeper | None = None
        self.journaled: Callable[[str], bool] = _none
        self._clock = clock
        self._wall = clock.wall
        self._post = post
        self._limit = max_message_size
        self._topics: dict[str, Topic] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._outbox: deque[tuple[Route, bytes, bytes]] = deque()
        self._posted = False
        self._tail: tuple[Context | None, str, bytes] = (None, "", _NO_TAIL)
        self._teller: Any = None
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
        self.link.admission = Access.admission(lambda: self.access)
        self.link.start(self._admit, self._answer)

    def close(self) -> None:
        """Stop publishing; later events are dropped. On the loop's thread. May be called twice."""
        self._closed = True
        if self._teller is not None:
            self._teller.cancel()
        self.link.close()

    def publish(
        self, topic: str, name: str, payload: Json = None, *, priority: str = "", context: Context | None = None
    ) -> None:
        """Publish an event. Any thread; it is sent from the loop.

        Args:
            topic: The topic.
            name: What happened.
            payload: More of it; plain values, structs, dataclasses.
            priority: That of a notification.
            context: The request in which it happened; by default the one that is being served.

        Raises:
            InvalidInput: A name has characters that keys cannot have.
            EncodeFailed: The payload cannot go over the wire.
            MessageTooLarge: It is too large.
        """
        route = self._routes.get((topic, name)) or self._route(topic, name)
        try:
            packed = encoder.encode(payload)
        except (TypeError, ValueError, OverflowError, RecursionError):
            packed = encode_value(payload, f"the payload of event {topic}.{self.host}.{name}")
        context = context or current_context()
        if holds_secrets(packed, context):
            packed = encode_value(without_secrets(payload, context), f"the payload of event {topic}.{self.host}.{name}")
        if len(packed) > self._limit:
            check_size(packed, self._limit, f"the event {topic}.{self.host}.{name}")
        if context is None and not priority:
            tail = _NO_TAIL
        else:
            request, known, tail = self._tail
            if request is not context or known != priority:
                # The next event is most likely of the same request.
                tail = _tail(context, priority)
                self._tail = (context, priority, tail)
        if threading.get_ident() == self._thread:
            self._send(route, packed, tail)
            return
        self._outbox.append((route, packed, tail))
        if not self._posted:
            self._posted = True
            self._post(self._send_posted)

    def tell_fanout(self, topic: str, method: str, request_id: str) -> None:
        """Publish `fanout.TOPIC` for a fanout that was accepted here. Its arguments stay out: viewers may listen."""
        self.publish(f"fanout.{topic}", method, {"request_id": request_id})

    def stats(self) -> dict[str, Any]:
        """Return the counters: events published, subscriptions refused, garbage by reason, what the journal says."""
        journal = {"journal": found} if self.journal is not None and (found := self.journal.stats()) else {}
        return {"published": self.published, "refused": self.refused, "garbage": dict(self.garbage), **journal}

    def set_journal(self, journal: Keeper | None, journaled: Callable[[str], bool]) -> None:
        """Say where events of which topics are kept, at the start and after a reload. On the loop's thread.

        A topic that is journaled no longer goes on with its numbers.
        """
        self.journal = journal
        self.journaled = journaled if journal is not None else _none
        for topic in self._topics.values():
            wanted = self.journaled(topic.name)
            if topic.journaled and not wanted and self.journal is not None:
                self.journal.retire(topic)
            else:
                topic.journaled = wanted

    # ---------------------------------------------------------------- on the loop

    def _send_posted(self) -> None:
        """Send what threads have published. The flag first: what is added from here on posts again."""
        self._posted = False
        outbox = self._outbox
        for _ in range(len(outbox)):
            self._send(*outbox.popleft())

    def _send(self, route: Route, packed: bytes, tail: bytes) -> None:
        if self._closed:
            return
        topic = route.topic
        at = self._wall()
        self.published += 1
        if topic.journaled and self.journal is not None:
            self.journal.take(route, packed, at, tail)
            return
        number = topic.number = topic.number + 1
        numbers = _numbers(b"\xcf", number, b"\xcf", topic.epoch, b"\xcb", at)
        self.send_body(route, number, b"".join((route.start, packed, numbers, tail, _PLAIN)))

    def send_plain(self, route: Route, packed: bytes, at: float, tail: bytes) -> None:
        """Number an event of a journaled topic whose numbers are not known, and send it. For the journal."""
        number = route.topic.number = route.topic.number + 1
        self.send_body(route, number, body_of(route, packed, number, at, tail, _PLAIN))

    def send_body(self, route: Route, number: int, body: bytes) -> None:
        """Send an event that has its number."""
        topic = route.topic
        topic.sent = number
        key = route.key
        self.last.put(key, body)
        self.link.publish(key + body)
        if self._teller is None or not topic.told:
            topic.told = True
            self._tell_heads_later()

    def _tell_heads_later(self) -> None:
        """Have heads sent after a moment, and again, as long as there are subscribers."""
        if self._teller is None and self.link.subscribers:
            import asyncio

            self._teller = asyncio.get_running_loop().call_later(_HEADS_EVERY, self._tell_heads)

    def _tell_heads(self) -> None:
        self._teller = None
        if self._closed:
            return
        self._tell_heads_later()  # first: one topic that cannot be told must not end this for all
        told = [topic for topic in self._topics.values() if topic.told]
        for topic in told[:_HEADS_LIMIT]:
            key = f"{topic.name}.{self.host}.".encode() + HEAD_KEY + END_OF_KEY
            self.link.publish(key + encoder.encode((HEADS, VERSION, [self._head(topic)])))

    def _head(self, topic: Topic) -> Head:
        return Head(topic.name, self.host, topic.sent, topic.epoch, topic.kept)

    @staticmethod
    def check_names(topic: str, name: str) -> None:
        """Look whether these can be an event's topic and name.

        Raises:
            InvalidInput: They have characters that keys cannot have, or are longer than 255 characters.
        """
        for part in (topic, name):
            if not _NAME(part):
                raise InvalidInput(
                    f"{cut(part, NAME_LIMIT)!r} cannot be part of an event's name",
                    hint="use letters, digits and `_ . : @ -`",
                )
            check_length("a part of an event's name", part, NAME_LIMIT)

    def _route(self, topic: str, name: str) -> Route:
        """Look at the names once, and keep what is the same for all events of a key. Any thread."""
        self.check_names(topic, name)
        if len(self._routes) >= _ROUTES_LIMIT:
            self._routes.clear()
        about = self._topics.get(topic)
        if about is None:
            # Two threads at once may both make one: the first to be put there is the one.
            about = self._topics.setdefault(topic, Topic(topic, self.epoch, self.journaled(topic)))
        key = f"{topic}.{self.host}.{name}".encode() + END_OF_KEY
        start = _BEFORE + b"".join(encoder.encode(part) for part in (topic, self.host, name))
        route = self._routes[topic, name] = Route(about, key, start)
        return route

    # ---------------------------------------------------------------- subscribers

    def _admit(self, peer: Peer) -> bool:
        if self.access.role_of(peer) is not None:
            return True
        self.refused += 1
        self._quiet.warning("subscription", f"{peer.name} may not subscribe to events: it has no role")
        self.on_refused(peer, _not_permitted(peer))
        return False

    def _count(self, peer: Peer, reason: str, what: str) -> None:
        self.garbage[reason] += 1
        self._quiet.warning(reason, f"{peer.name} sent what is no subscription ({reason}): {what}")

    def _answer(self, peer: Peer, question: bytes) -> list[bytes]:
        """Answer that the subscriptions before stand; before that with last events and heads, if asked for."""
        if self.access.role_of(peer) is None:
            return [encode_failure(None, _not_permitted(peer))]
        accepted = encode_message(Accepted(VERSION, 0, 1))
        _, mark, wanted = question.partition(b"?")
        if not mark:
            return [accepted]
        flags, *prefixes = wanted.split(b"\n")
        lasts = self.last.fitting(prefixes) if b"l" in flags else []
        chosen = tuple(prefixes)
        sent = [topic for topic in self._topics.values() if topic.sent]
        heads = [self._head(topic) for topic in sent if f"{topic.name}.".encode().startswith(chosen)]
        return [
            # The body is `[1, event]`, what is sent is `[20, 1, event]`.
            *(b"\x93\x14" + body[1:] for body in lasts),
            encoder.encode((HEADS, VERSION, heads)),
            accepted,
        ]


def body_of(route: Route, packed: bytes, number: int, at: float, tail: bytes, kept: bytes) -> bytes:
    """Return an event as it goes over the wire, after its key."""
    numbers = _numbers(b"\xcf", number, b"\xcf", route.topic.epoch, b"\xcb", at)
    return route.start + packed + numbers + tail + kept


def _tail(context: Context | None, priority: str) -> bytes:
    request_id, trace = (context.request_id, context.trace) if context is not None else ("", "")
    return encoder.encode(request_id) + encoder.encode(trace) + encoder.encode(priority)


def holds_secrets(packed: bytes, context: Context | None) -> bool:
    """Return whether an encoded payload holds a secret of the process, or of the request in which it happened."""
    return SECRETS.in_bytes(packed, also=context.secrets if context is not None else ())


def without_secrets(payload: Json, context: Context | None) -> Any:
    """Return a payload without the secrets of the process, and those of the request in which it happened."""
    import msgspec

    plain = msgspec.to_builtins(payload)
    return SECRETS.redact_deep(plain, also=context.secrets if context is not None else ())


def _none(_topic: str) -> bool:
    return False


def _not_permitted(peer: Peer) -> NotPermitted:
    return NotPermitted(
        f"events need the role {Role.VIEWER}: {peer.name} may not subscribe, it has no role here",
        hint="an administrator gives it in [access]",
        needs=str(Role.VIEWER),
        uid=peer.uid,
    )
