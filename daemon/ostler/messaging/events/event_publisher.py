"""The publisher: numbers events, sends them, keeps the last ones, and decides who may subscribe."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter, deque
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.bounds import NAME_LIMIT, truncate
from ostler.clock import Clock
from ostler.errors import InvalidInput, NotPermitted, check_length
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.access.roles import Access
from ostler.messaging.events.event import KEY_TERMINATOR, NOT_JOURNALED, WATERMARK_KEY, WATERMARKS, Watermark, encoder
from ostler.messaging.events.last_value_cache import LastValueCache
from ostler.messaging.wire.envelope import (
    MAX_MESSAGE_SIZE,
    PROTOCOL_VERSION,
    Accepted,
    check_size,
    encode_failure,
    encode_message,
    encode_value,
)
from ostler.messaging.wire.request_context import current_context
from ostler.messaging.wire.transport import Admission, EventHandler, EventLink
from ostler.redaction import SECRETS
from ostler.types import Json, Peer, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from ostler.errors import OstlerError
    from ostler.messaging.wire.request_context import Context

    class JournalSink(Protocol):
        """The journal, as the publisher knows it."""

        def append(self, route: EventTemplate, packed: bytes, at: float, tail: bytes) -> None:
            """Number an event, store it, and send it. Never waits."""

        def stop_journaling(self, topic: TopicState) -> None:
            """Stop storing events of a topic."""

        def stats(self) -> dict[str, int]:
            """Return the counters."""


_log = logging.getLogger(__name__)
_match_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*").fullmatch
_MAX_TEMPLATES = 10_000
_WATERMARK_INTERVAL = 3.0
"""Seconds between two heads: within this time a subscriber learns that the last events did not reach it."""
_MAX_WATERMARKS = 1000
_MESSAGE_HEADER = b"\x92" + encoder.encode(PROTOCOL_VERSION) + b"\x9b"
"""How a message begins: an array of the version and an event, which is an array of eleven."""
_pack_numbers = Struct(">cQcQcd").pack
_NO_TAIL = b"\xa0\xa0\xa0"
"""An event's `request_id`, `trace` and `priority` outside of a request."""
_NOT_JOURNALED = encoder.encode(NOT_JOURNALED)


class TopicState:
    """What the publisher knows of a topic: its last number, the last one that has gone out, and its epoch."""

    __slots__ = ("epoch", "is_announced", "is_journaled", "journal_state", "last_sent", "last_sequence", "name")

    def __init__(self, name: str, epoch: int, journaled: bool) -> None:
        self.name = name
        self.last_sequence = 0
        self.last_sent = 0
        self.epoch = epoch
        self.is_journaled = journaled
        self.journal_state = NOT_JOURNALED
        self.is_announced = False


class EventTemplate(NamedTuple):
    """What never changes of the events of one key: the topic, the key, the bytes before the payload."""

    topic: TopicState
    key: bytes
    encoded_names: bytes


class EventLimits(NamedTuple):
    """How many last events are kept for late joiners, how many bytes of them, and seconds between two watermarks."""

    last_value_keys: int = 1000
    last_value_size: int = 1024 * 1024
    watermark_interval: float = _WATERMARK_INTERVAL


class Publisher:
    """Publishes events over one transport, numbered by topic.

    Args:
        link: The publisher's end of the transport.
        host: The host that events are from.
        clock: The source of time.
        access: Who may subscribe: each role may; `apply` puts another in its place.
        post: Brings a callable from any thread to the loop.
        max_message_size: The size limit in bytes.
        limits: What is kept for late joiners, and how often watermarks are sent.
        record_refusal: Called for each peer that was not let in or not allowed to subscribe, with `connect` or
            `subscribe`, and the reason; None for nobody.
    """

    def __init__(
        self,
        link: EventLink,
        host: str,
        clock: Clock,
        access: Access,
        post: Callable[[Callable[[], None]], None],
        *,
        max_message_size: int = MAX_MESSAGE_SIZE,
        limits: EventLimits | None = None,
        record_refusal: Callable[[Peer, str, OstlerError], None] | None = None,
    ) -> None:
        self.link = link
        self.host = host
        self._access = access
        self.epoch = int(clock.wall() * 1000)
        self.published_count = 0
        self.refused_count = 0
        self.invalid_messages: Counter[str] = Counter()
        limits = limits or EventLimits()
        self.last_values = LastValueCache(limits.last_value_keys, limits.last_value_size, host)
        self.journal: JournalSink | None = None
        self.is_journaled: Callable[[str], bool] = _never_journaled
        self._record_refusal = record_refusal
        self._clock = clock
        self._wall = clock.wall
        self._post = post
        self._max_message_size = max_message_size
        self._topics: dict[str, TopicState] = {}
        self._templates: dict[tuple[str, str], EventTemplate] = {}
        self._outbox: deque[tuple[EventTemplate, bytes, bytes]] = deque()
        self._is_send_posted = False
        self._cached_tail: tuple[Context | None, str, bytes] = (None, "", _NO_TAIL)
        self._watermark_interval = limits.watermark_interval
        self._watermark_timer: Any = None
        self._loop_thread_id = 0
        self._closed = False
        self._rate_limited_log = RateLimitedLog(_log, clock)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.link.address

    def start(self) -> None:
        """Begin to take subscribers. On the loop's thread."""
        self._loop_thread_id = threading.get_ident()
        self.link.start(self)

    def add_link(self, link: EventLink) -> None:
        """Publish over one more transport from now on. On the loop's thread."""
        link.start(self)
        self.link = CompositeEventLink(self.link, link)

    def links(self) -> list[EventLink]:
        """Return its ends, one of each transport. On the loop's thread."""
        return list(_flat(self.link))

    def apply(self, access: Access) -> None:
        """Put other access rules in force, as a reload does. On the loop's thread."""
        self._access = access

    def close(self) -> None:
        """Stop publishing; later events are dropped. On the loop's thread. May be called twice."""
        self._closed = True
        if self._watermark_timer is not None:
            self._watermark_timer.cancel()
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
            EncodeError: The payload cannot be encoded.
            MessageTooLarge: It is too large.
        """
        route = self._templates.get((topic, name)) or self._make_template(topic, name)
        try:
            packed = encoder.encode(payload)
        except (TypeError, ValueError, OverflowError, RecursionError):
            packed = encode_value(payload, f"the payload of event {topic}.{self.host}.{name}")
        context = context or current_context()
        if has_secrets(packed, context):
            packed = encode_value(redact_payload(payload, context), f"the payload of event {topic}.{self.host}.{name}")
        if len(packed) > self._max_message_size:
            check_size(packed, self._max_message_size, f"the event {topic}.{self.host}.{name}")
        if context is None and not priority:
            tail = _NO_TAIL
        else:
            request, known, tail = self._cached_tail
            if request is not context or known != priority:
                # The next event is most likely of the same request.
                tail = _encode_tail(context, priority)
                self._cached_tail = (context, priority, tail)
        if threading.get_ident() == self._loop_thread_id:
            self._send(route, packed, tail)
            return
        self._outbox.append((route, packed, tail))
        if not self._is_send_posted:
            self._is_send_posted = True
            self._post(self._send_outbox)

    def publish_fanout(self, topic: str, method: str, request_id: str) -> None:
        """Publish `fanout.TOPIC` for a fanout that was accepted here. Its arguments stay out: viewers may listen."""
        self.publish(f"fanout.{topic}", method, {"request_id": request_id})

    def stats(self) -> dict[str, Any]:
        """Return the counters: events published, subscriptions refused, garbage by reason, what the journal says."""
        journal = {"journal": found} if self.journal is not None and (found := self.journal.stats()) else {}
        return {
            "published": self.published_count,
            "refused": self.refused_count,
            "garbage": dict(self.invalid_messages),
            **journal,
        }

    def set_journal(self, journal: JournalSink | None, is_journaled: Callable[[str], bool]) -> None:
        """Set which journal stores the events of which topics, at the start and after a reload. On the loop's thread.

        A topic that is journaled no longer goes on with its numbers.
        """
        self.journal = journal
        self.is_journaled = is_journaled if journal is not None else _never_journaled
        for topic in self._topics.values():
            wanted = self.is_journaled(topic.name)
            if topic.is_journaled and not wanted and self.journal is not None:
                self.journal.stop_journaling(topic)
            else:
                topic.is_journaled = wanted

    # ---------------------------------------------------------------- on the loop

    def _send_outbox(self) -> None:
        """Send what threads have published. The flag first: what is added from here on posts again."""
        self._is_send_posted = False
        outbox = self._outbox
        for _ in range(len(outbox)):
            self._send(*outbox.popleft())

    def _send(self, template: EventTemplate, packed: bytes, tail: bytes) -> None:
        if self._closed:
            return
        topic = template.topic
        at = self._wall()
        self.published_count += 1
        if topic.is_journaled and self.journal is not None:
            self.journal.append(template, packed, at, tail)
            return
        number = topic.last_sequence = topic.last_sequence + 1
        numbers = _pack_numbers(b"\xcf", number, b"\xcf", topic.epoch, b"\xcb", at)
        self.send_encoded(template, number, b"".join((template.encoded_names, packed, numbers, tail, _NOT_JOURNALED)))

    def send_unjournaled(self, template: EventTemplate, packed: bytes, at: float, tail: bytes) -> None:
        """Number an event of a journaled topic whose numbers are not known, and send it. For the journal."""
        number = template.topic.last_sequence = template.topic.last_sequence + 1
        self.send_encoded(template, number, encode_body(template, packed, number, at, tail, _NOT_JOURNALED))

    def send_encoded(self, template: EventTemplate, sequence: int, body: bytes) -> None:
        """Send an event that has its number."""
        topic = template.topic
        topic.last_sent = sequence
        key = template.key
        self.last_values.put(key, body)
        self.link.publish(key + body)
        if self._watermark_timer is None or not topic.is_announced:
            topic.is_announced = True
            self._schedule_watermarks()

    def _schedule_watermarks(self) -> None:
        """Have heads sent after a moment, and again, as long as there are subscribers."""
        if self._watermark_timer is None and self.link.has_subscribers:
            self._watermark_timer = asyncio.get_running_loop().call_later(
                self._watermark_interval, self._publish_watermarks
            )

    def _publish_watermarks(self) -> None:
        self._watermark_timer = None
        if self._closed:
            return
        self._schedule_watermarks()  # first: one topic that cannot be told must not end this for all
        told = [topic for topic in self._topics.values() if topic.is_announced]
        for topic in told[:_MAX_WATERMARKS]:
            key = f"{topic.name}.{self.host}.".encode() + WATERMARK_KEY + KEY_TERMINATOR
            self.link.publish(key + encoder.encode((WATERMARKS, PROTOCOL_VERSION, [self._watermark(topic)])))

    def _watermark(self, topic: TopicState) -> Watermark:
        return Watermark(topic.name, self.host, topic.last_sent, topic.epoch, topic.journal_state)

    @staticmethod
    def check_names(topic: str, name: str) -> None:
        """Check that these can be an event's topic and name.

        Raises:
            InvalidInput: They have characters that keys cannot have, or are longer than 255 characters.
        """
        for part in (topic, name):
            if not _match_name(part):
                raise InvalidInput(
                    f"{truncate(part, NAME_LIMIT)!r} cannot be part of an event's name",
                    hint="use letters, digits and `_ . : @ -`",
                )
            check_length("a part of an event's name", part, NAME_LIMIT)

    def _make_template(self, topic: str, name: str) -> EventTemplate:
        """Look at the names once, and keep what is the same for all events of a key. Any thread."""
        self.check_names(topic, name)
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        about = self._topics.get(topic)
        if about is None:
            # Two threads may both create one: the first to be stored wins.
            about = self._topics.setdefault(topic, TopicState(topic, self.epoch, self.is_journaled(topic)))
        key = f"{topic}.{self.host}.{name}".encode() + KEY_TERMINATOR
        start = _MESSAGE_HEADER + b"".join(encoder.encode(part) for part in (topic, self.host, name))
        route = self._templates[topic, name] = EventTemplate(about, key, start)
        return route

    # ---------------------------------------------------------------- the handler of its link

    @property
    def admission(self) -> Admission:
        """See `LinkHandler.admission`."""
        return Access.admission(lambda: self._access)

    def on_refused(self, peer: Peer, error: OstlerError) -> None:
        """See `LinkHandler.on_refused`."""
        if self._record_refusal is not None:
            self._record_refusal(peer, "connect", error)

    def may_subscribe(self, peer: Peer) -> bool:
        """See `EventHandler.may_subscribe`."""
        if self._access.role_of(peer) is not None:
            return True
        self.refused_count += 1
        self._rate_limited_log.warning(
            "subscription", f"{peer.name} is not allowed to subscribe to events: it has no role"
        )
        if self._record_refusal is not None:
            self._record_refusal(peer, "subscribe", _not_permitted(peer))
        return False

    def on_invalid_message(self, peer: Peer, reason: str, description: str) -> None:
        """See `LinkHandler.on_invalid_message`."""
        self.invalid_messages[reason] += 1
        self._rate_limited_log.warning(reason, f"{peer.name} sent an invalid subscription ({reason}): {description}")

    def answer_question(self, peer: Peer, question: bytes) -> list[bytes]:
        """Answer that the subscriptions before stand; before that with last events and heads, if asked for."""
        if self._access.role_of(peer) is None:
            return [encode_failure(None, _not_permitted(peer))]
        accepted = encode_message(Accepted(PROTOCOL_VERSION, 0, 1))
        _, mark, wanted = question.partition(b"?")
        if not mark:
            return [accepted]
        flags, *prefixes = wanted.split(b"\n")
        lasts = self.last_values.matching(prefixes) if b"l" in flags else []
        chosen = tuple(prefixes)
        sent = [topic for topic in self._topics.values() if topic.last_sent]
        heads = [self._watermark(topic) for topic in sent if f"{topic.name}.".encode().startswith(chosen)]
        return [
            # The body is `[1, event]`, what is sent is `[20, 1, event]`.
            *(b"\x93\x14" + body[1:] for body in lasts),
            encoder.encode((WATERMARKS, PROTOCOL_VERSION, heads)),
            accepted,
        ]


def encode_body(
    template: EventTemplate, packed: bytes, sequence: int, at: float, tail: bytes, journaled: bytes
) -> bytes:
    """Return an event as it goes over the wire, after its key."""
    numbers = _pack_numbers(b"\xcf", sequence, b"\xcf", template.topic.epoch, b"\xcb", at)
    return template.encoded_names + packed + numbers + tail + journaled


def _encode_tail(context: Context | None, priority: str) -> bytes:
    request_id, trace = (context.request_id, context.trace) if context is not None else ("", "")
    return encoder.encode(request_id) + encoder.encode(trace) + encoder.encode(priority)


def has_secrets(packed: bytes, context: Context | None) -> bool:
    """Return whether an encoded payload holds a secret of the process, or of the request in which it happened."""
    return SECRETS.has_secret_in_bytes(packed, extra_values=context.secrets if context is not None else ())


def redact_payload(payload: Json, context: Context | None) -> Any:
    """Return a payload without the secrets of the process, and those of the request in which it happened."""
    plain = msgspec.to_builtins(payload)
    return SECRETS.redact_deep(plain, extra_values=context.secrets if context is not None else ())


def _never_journaled(_topic: str) -> bool:
    return False


def _not_permitted(peer: Peer) -> NotPermitted:
    return NotPermitted(
        f"events need the role {Role.VIEWER}: {peer.name} has no role here",
        hint="an administrator grants it in [access]",
        needs=str(Role.VIEWER),
        uid=peer.uid,
    )


def _flat(link: EventLink) -> Iterator[EventLink]:
    if isinstance(link, CompositeEventLink):
        for each in link.links:
            yield from _flat(each)
    else:
        yield link


class CompositeEventLink:
    """The publisher's ends of several transports; implements `EventLink`. On the loop's thread only.

    Args:
        links: The ends; the address is that of the first.
    """

    def __init__(self, *links: EventLink) -> None:
        self.address = links[0].address
        self.links = links

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return any(link.has_subscribers for link in self.links)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        for link in self.links:
            link.start(handler)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        for link in self.links:
            link.publish(data)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        for link in self.links:
            link.disconnect_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        for link in self.links:
            link.close()
