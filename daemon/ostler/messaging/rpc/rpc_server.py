"""Connects a transport to the dispatcher: decodes what comes in, encodes what goes out, keepalives and progress."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.aio import LoopQueue
from ostler.errors import OWN_SHARE, Busy, EncodeError, MalformedMessage, MessageTooLarge, OstlerError, shortest_error
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.rpc.in_flight import DeadlineTimer
from ostler.messaging.wire.envelope import (
    CAST,
    ENCODE_ERRORS,
    FANOUT,
    MAX_ELEMENTS,
    MAX_MESSAGE_SIZE,
    PROTOCOL_VERSION,
    RETRY,
    Accepted,
    Credit,
    Keepalive,
    ProgressReport,
    Request,
    ToServer,
    check_elements,
    decode_to_server,
    encode_failure,
    encode_item,
    encode_items,
    encode_message,
    encode_reply,
    peek_header,
)
from ostler.messaging.wire.request_context import Progress
from ostler.messaging.wire.transport import Admission, ClientId, Data, ServerLink
from ostler.types import CONTROL_TOPIC, Peer

if TYPE_CHECKING:
    from ostler.messaging.rpc.dedup import DedupCache
    from ostler.messaging.wire.peer_quotas import MemoryAccount


class DedupLimits(msgspec.Struct, frozen=True):
    """Number and bytes of answers, seconds for which a request is known, and the grace time of work.

    `orphan_grace` is for how many seconds work goes on whose caller has gone, and may come back.
    """

    max_results: int = 1000
    max_bytes: int = 16 * 1024 * 1024
    ttl: float = 600.0
    orphan_grace: float = 5.0


_MIN_INTERVAL = 0.05
"""Seconds between two reports of a call."""


class ProgressThrottle:
    """Sends the newest report, at most twenty times a second.

    Args:
        call: Whose progress it is.
    """

    def __init__(self, call: WireCall) -> None:
        self._call = call
        self._latest: Progress | None = None
        self._is_posted = False
        self._sent_at = 0.0

    def report(self, progress: Progress) -> None:
        """Take a report. Any thread."""
        self._latest = progress
        if self._is_posted:
            return
        server = self._call.server
        if threading.get_ident() == server.thread_id:
            self._send_or_delay()
        else:
            self._is_posted = True
            server.inbox.post(self._send_or_delay)

    def _send_or_delay(self) -> None:
        wait = self._sent_at + _MIN_INTERVAL - self._call.server.clock.monotonic()
        self._is_posted = wait > 0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._send_delayed)
        elif not self._call.is_answered:
            self.flush()

    def _send_delayed(self) -> None:
        self._is_posted = False
        if not self._call.is_answered:
            self.flush()

    def flush(self) -> None:
        """Send the newest report, if it has not been. On the loop's thread."""
        progress, self._latest = self._latest, None
        if progress is None:
            return
        self._sent_at = self._call.server.clock.monotonic()
        advance = ProgressReport(
            PROTOCOL_VERSION, self._call.request.id, float(progress.done), float(progress.total), str(progress.text)
        )
        self._call.server.send(self._call.client, encode_message(advance))


_log = logging.getLogger(__name__)
_FIRST_KEEPALIVE_DELAY = 1.0
"""A client that does not know the interval yet gets its first beat within so many seconds."""
_CAST_FLAGS = CAST | FANOUT
_LARGE_MESSAGE_SIZE = 4096
"""Bytes of a request above which its sender is charged for it as long as it is in progress."""


class ServerLimits(msgspec.Struct, frozen=True):
    """What a server takes from its clients; a reload may change it.

    Attributes:
        max_in_flight_per_peer: Requests that one connection may have in progress; the topic `ostler` is always
            answered.
        max_elements: Values, lists and maps that one message may hold: decoding them costs more than their bytes do.
        dedup: How much is stored of requests that may be retried.
        keepalive_interval: Seconds between two beats to each client that waits for an answer.
    """

    max_in_flight_per_peer: int = 2000
    max_elements: int = MAX_ELEMENTS
    dedup: DedupLimits = DedupLimits()
    keepalive_interval: float = 1.0


class RpcServer:
    """Answers the requests that come over one transport; its link's `ServerHandler`. On the loop's thread only.

    Args:
        link: The server's end of the transport.
        dispatcher: What decides and runs.
        inbox: Brings progress from threads to the loop.
        max_message_size: The size limit in bytes, both ways.
        limits: What it takes from its clients; `apply` puts others in force.
    """

    max_elements: int
    max_in_flight_per_peer: int
    dedup_limits: DedupLimits
    keepalive_interval: float

    def __init__(
        self,
        link: ServerLink,
        dispatcher: Dispatcher,
        inbox: LoopQueue,
        *,
        max_message_size: int = MAX_MESSAGE_SIZE,
        limits: ServerLimits | None = None,
    ) -> None:
        self.link = link
        self.inbox = inbox
        self.clock = dispatcher.clock
        self.max_message_size = max_message_size
        self.invalid_messages: Counter[str] = Counter()
        self.late_messages: Counter[str] = Counter()
        """Messages about requests that this connection does not have; most are late."""
        self.dedup_cache: DedupCache | None = None
        """The requests that may be retried; None until there has been one."""
        self.lost_clients = 0
        self._casts: Counter[Hashable] = Counter()
        self.thread_id = 0
        self._dispatcher = dispatcher
        self._calls: dict[ClientId, dict[int, WireCall]] = {}
        self._keepalives_due: dict[ClientId, float] = {}
        self._keepalive_timer = DeadlineTimer(self.clock, self._send_keepalives)
        self._unregister_from_inbox: Callable[[], None] | None = None
        self._rate_limited_log = RateLimitedLog(_log, self.clock)
        self.apply(limits or ServerLimits())

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.link.address

    def start(self) -> None:
        """Begin to answer."""
        self.thread_id = threading.get_ident()
        self._unregister_from_inbox = self.inbox.add_batch_hooks(self.link.cork, self.link.uncork)
        self.link.start(self)

    def apply(self, limits: ServerLimits) -> None:
        """Put other limits in force, as a reload does; what is in progress is not touched."""
        # Each is looked at with every message.
        self.max_elements = limits.max_elements
        self.max_in_flight_per_peer = limits.max_in_flight_per_peer
        self.dedup_limits = limits.dedup
        self.keepalive_interval = limits.keepalive_interval

    def close(self) -> None:
        """Stop answering and release the address; what is in progress is cancelled. May be called twice."""
        for client in list(self._calls):
            for call in list(self._calls.get(client, {}).values()):
                call.stop()
        self._calls.clear()
        if self._unregister_from_inbox is not None:
            self._unregister_from_inbox()
            self._unregister_from_inbox = None
        self._keepalive_timer.cancel()
        if self.dedup_cache is not None:
            self.dedup_cache.close()
        self.link.close()

    def stats(self) -> dict[str, Any]:
        """Return the counters: garbage by reason, clients that wait, calls in progress, clients that vanished."""
        self._dispatcher.thread_replies.collect()
        return {
            "garbage": dict(self.invalid_messages),
            "clients": len(self._calls),
            "in_flight": sum(map(len, self._calls.values())),
            "vanished": self.lost_clients,
            "stray": dict(self.late_messages),
            "duplicates": self.dedup_cache.stats() if self.dedup_cache is not None else {},
        }

    # ---------------------------------------------------------------- the handler of its link

    @property
    def admission(self) -> Admission:
        """See `LinkHandler.admission`."""
        return self._dispatcher.admission

    def can_spin(self) -> bool:
        """See `ServerHandler.can_spin`; not while threads have work: they need what the loop would use up."""
        return self._dispatcher.is_pool_idle()

    def on_batch_end(self) -> None:
        """See `ServerHandler.on_batch_end`."""
        self._dispatcher.thread_replies.on_batch_end(self.link.is_core_free)

    def on_refused(self, peer: Peer, error: OstlerError) -> None:
        """See `LinkHandler.on_refused`."""
        self._dispatcher.record_refusal(peer, "connect", error)

    def on_client_drained(self, client: ClientId) -> None:
        """See `ServerHandler.on_client_drained`."""
        self._dispatcher.resume_streams(client)

    def on_message(self, client: ClientId, data: Data, peer: Peer) -> None:
        """See `ServerHandler.on_message`."""
        try:
            if len(data) > self.max_message_size:
                raise self._too_large_error(data)
            if len(data) > self.max_elements:
                check_elements(data, self.max_elements, "a message")
            message = decode_to_server(data)
        except (MalformedMessage, MessageTooLarge) as error:
            self._refuse_invalid(client, peer, data, error)
            return
        if type(message) is not Request:
            self._handle_control(client, message)
            return
        if self._dispatcher.thread_replies.sent:
            self._dispatcher.thread_replies.collect()  # whoever was replied to may use the number again
        under_way = self._calls.get(client)
        if under_way is not None and self._refuse_if_over_limit(client, peer, message, under_way):
            return
        if (
            len(data) > _LARGE_MESSAGE_SIZE
            and (memory := self.link.memory_account(client)) is not None
            and not memory.has_room(len(data))
        ):
            self.refuse(message, peer, client, memory.no_room_error(f"{message.topic}.{message.method}"))
            return
        if message.flags & _CAST_FLAGS and self._casts[peer.account] >= self.max_in_flight_per_peer:
            self.refuse(
                message,
                peer,
                client,
                self._busy_error(f"this caller has {self._casts[peer.account]} casts in progress"),
            )
        elif message.flags & RETRY and message.request_id:
            self._dispatch_deduped(message, peer, client)
        else:
            self._dispatcher.dispatch(WireCall(message, peer, client, self))

    def _dispatch_deduped(self, request: Request, peer: Peer, client: ClientId) -> None:
        """Run a request that may be retried, unless it was received before; see `duplicates`."""
        if self.dedup_cache is None:
            from ostler.messaging.rpc.dedup import DedupCache  # its memory: only when requests are retried

            self.dedup_cache = DedupCache(self)
        call = self.dedup_cache.receive(request, peer, client)
        if call is not None:
            self._dispatcher.dispatch(call)

    def refuse(self, request: Request, peer: Peer, client: ClientId, error: OstlerError) -> None:
        """Refuse a request for a reason that the dispatcher does not know."""
        self._dispatcher.refuse(WireCall(request, peer, client, self), error)

    def is_authorised(self, peer: Peer) -> bool:
        """Return whether a peer has any role."""
        return self._dispatcher.is_authorised(peer)

    def cancel(self, call: Call, error: OstlerError) -> None:
        """End a request early with this error."""
        self._dispatcher.cancel(call, error)

    def _handle_control(self, client: ClientId, message: ToServer) -> None:
        """Cancel a call, or give a stream credit; one that has ended meanwhile, or never was, is only counted."""
        call = self._calls.get(client, {}).get(message.id)
        streams = self._dispatcher.streams
        if isinstance(message, Credit):
            if call is None or streams is None or not streams.add_credit(call, message.items):
                self.late_messages["credit"] += 1
        elif call is None:
            self.late_messages["cancel"] += 1
        else:
            self._dispatcher.cancel(call)

    def _too_large_error(self, data: Data) -> MessageTooLarge:
        return MessageTooLarge(
            f"a message has {len(data)} bytes, the limit is {self.max_message_size}",
            hint="send less at once, or raise `max_message_size` in [messaging]",
            size=len(data),
            limit=self.max_message_size,
        )

    def _refuse_if_over_limit(
        self, client: ClientId, peer: Peer, request: Request, under_way: dict[int, WireCall]
    ) -> bool:
        if request.id in under_way:
            error = MalformedMessage("the same number is used for two requests at once", reason="duplicate")
            self._count_invalid_error(peer, error)
            self.link.report_invalid(client)
            return True
        if len(under_way) < self.max_in_flight_per_peer or request.topic == CONTROL_TOPIC:
            return False
        self.refuse(
            request, peer, client, self._busy_error(f"this connection has {len(under_way)} requests in progress")
        )
        return True

    def _busy_error(self, what: str) -> Busy:
        return Busy(
            f"{what}, which is the limit",
            hint="wait for some of them to complete",
            retry_after=1.0,
            reason=OWN_SHARE,
            limit=self.max_in_flight_per_peer,
        )

    def _refuse_invalid(self, client: ClientId, peer: Peer, data: Data, error: OstlerError) -> None:
        self._count_invalid_error(peer, error)
        head = peek_header(data)
        if len(head) > 2:
            self.link.send(client, encode_failure(head[2], error))
        self.link.report_invalid(client)

    def on_unbuffered(self, client: ClientId, head: bytes, peer: Peer) -> None:
        """Tell a client that there was no room for its request, or for the answer to it."""
        memory = self.link.memory_account(client)
        found = peek_header(head)
        if memory is None or len(found) < 3 or not isinstance(found[2], int):
            return
        error = memory.no_room_error("a message")
        self._rate_limited_log.warning(f"memory {memory.name}", error.message)
        self.link.send(client, encode_failure(found[2], error))

    def _count_invalid_error(self, peer: Peer, error: OstlerError) -> None:
        self.on_invalid_message(peer, error.reason or "large", error.message)

    def on_invalid_message(self, peer: Peer, reason: str, description: str) -> None:
        """See `LinkHandler.on_invalid_message`."""
        self.invalid_messages[reason] += 1
        self._rate_limited_log.warning(reason, f"{peer.name} sent an invalid request ({reason}): {description}")

    # ---------------------------------------------------------------- what goes out

    def send(self, client: ClientId, data: bytes) -> bool:
        """Send to a client; what a client that has gone had in progress is stopped."""
        there = self.link.send(client, data)
        if not there:
            self.on_client_gone(client)
        return there

    def add_call(self, call: WireCall) -> None:
        """Record a call that did not end at once: its client gets beats, and may cancel it.

        Casts are only counted, for who sent them: they go on when their connection has gone.
        """
        client = call.client
        if call.request.flags & _CAST_FLAGS:
            self._casts[call.peer.account] += 1
            return
        under_way = self._calls.get(client)
        if under_way is None:
            under_way = self._calls[client] = {}
            due = self.clock.monotonic() + min(_FIRST_KEEPALIVE_DELAY, self.keepalive_interval)
            self._keepalives_due[client] = due
            self._keepalive_timer.schedule(due)
        under_way[call.request.id] = call

    def remove_call(self, call: WireCall) -> None:
        """Forget a call."""
        if call.request.flags & _CAST_FLAGS:
            self._casts[call.peer.account] -= 1
            if not self._casts[call.peer.account]:
                del self._casts[call.peer.account]
            return
        number, under_way = call.request.id, self._calls.get(call.client)
        if under_way is None or under_way.get(number) is not call:
            return
        del under_way[number]
        if under_way:
            return
        del self._calls[call.client]
        self._keepalives_due.pop(call.client, None)

    def on_client_gone(self, client: ClientId) -> None:
        """See `ServerHandler.on_client_gone`: nothing is sent, and what the client waited for is cancelled."""
        self._keepalives_due.pop(client, None)
        calls = self._calls.pop(client, None)
        if not calls:
            return
        self.lost_clients += 1
        for call in calls.values():
            call.on_client_gone()

    def _send_keepalives(self, now: float) -> float | None:
        for client, due in list(self._keepalives_due.items()):
            if due > now:
                continue
            self._keepalives_due[client] = now + self.keepalive_interval
            # Calls that were answered are left out: a client that still waits for one has missed its answer, and learns
            # that.
            ids = [number for number, call in self._calls[client].items() if not call.is_answered]
            self.send(client, encode_message(Keepalive(PROTOCOL_VERSION, ids, self.keepalive_interval)))
        return min(self._keepalives_due.values(), default=None)


class WireCall(Call):
    """A request that came over the transport."""

    _progress: ProgressThrottle | None = None
    _memory: MemoryAccount | None = None
    _is_relayed_cast = False

    def __init__(self, request: Request, peer: Peer, client: ClientId, server: RpcServer) -> None:
        self.request = request
        self.peer = peer
        self.client = client
        self.server = server
        self.context = self._make_context(server.clock)

    def relay(self, request: Request, *, is_cast: bool) -> None:
        """See `Call.relay`."""
        self.requested_method = self.full_name
        self.request = request
        self._is_relayed_cast = is_cast

    def pack(self, result: object) -> bytes:
        """See `Call.pack`."""
        request = self.request
        if self._is_relayed_cast:
            return self.encode_accepted(int(result) if isinstance(result, int) else 1)
        return encode_reply(request.id, result, self.server.max_message_size, request.topic, request.method)

    def pack_item(self, item: object, number: int) -> bytes:
        """See `Call.pack_item`."""
        return encode_item(item, number, self.server.max_message_size, self.full_name)

    def send_items(self, first: int, items: list[bytes]) -> None:
        """See `Call.items`."""
        self.server.send(self.client, encode_items(self.request.id, first, items))

    def send_reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        if self._progress is not None:
            self._progress.flush()
        self.server.send(self.client, packed)

    @property
    def can_reply_from_thread(self) -> bool:
        """See `Call.can_reply_from_thread`."""
        return self.server.link.can_send_from_thread

    def send_reply_from_thread(self, packed: bytes, claim: Callable[[], bool]) -> bool:
        """See `Call.send_reply_from_thread`."""
        if self._progress is not None:
            return False  # what is left of it goes out before the reply, and the loop knows what that is
        return self.server.link.send_from_thread(self.client, packed, claim)

    def send_error(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self.server.send(self.client, self.encode_error(error))

    def encode_error(self, error: OstlerError) -> bytes:
        """Return an error as it goes to the caller."""
        try:
            packed = encode_failure(self.request.id, error)
        except ENCODE_ERRORS:  # its class has names or a string that cannot be encoded
            return encode_failure(self.request.id, EncodeError(f"the error of {self.full_name} cannot be encoded"))
        if len(packed) <= self.server.max_message_size:
            return packed
        return encode_failure(self.request.id, shortest_error(error))

    def send_accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        self.server.send(self.client, self.encode_accepted(reached))

    def encode_accepted(self, reached: int) -> bytes:
        """Return the acceptance of a cast as it goes to the caller."""
        return encode_message(Accepted(PROTOCOL_VERSION, self.request.id, reached))

    def on_client_gone(self) -> None:
        """Record that the caller has disconnected: nothing is sent, and the work is cancelled. On the loop."""
        # A program that cancels and ends at once, as after Ctrl-C, has cancelled: its work has not seen it yet.
        self.is_caller_gone = not self.context.cancelled
        self.claim_reply()
        self.stop()

    def send_progress(self, progress: Progress) -> None:
        """See `Call.advance`."""
        if self._progress is None:
            self._progress = ProgressThrottle(self)
        self._progress.report(progress)

    def on_registered(self) -> None:
        """See `Call.registered`."""
        if (
            len(self.request.arguments) > _LARGE_MESSAGE_SIZE
            and (memory := self.server.link.memory_account(self.client)) is not None
        ):
            self._memory = memory
            memory.charge(len(self.request.arguments))
        self.server.add_call(self)

    def on_ended(self) -> None:
        """See `Call.ended`."""
        if self._memory is not None:
            self._memory.release(len(self.request.arguments))
            self._memory = None
        self.server.remove_call(self)

    def check_memory(self) -> None:
        """See `Call.check_memory`."""
        memory = self.server.link.memory_account(self.client)
        if memory is not None and not memory.has_room(0):
            raise memory.no_room_error(self.full_name)

    @property
    def is_congested(self) -> bool:
        """See `Call.is_congested`."""
        return self.server.link.is_congested(self.client)
