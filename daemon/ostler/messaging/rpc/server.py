"""Joins a transport to the dispatcher: what comes in is decoded, what goes out is encoded, callers get beats."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from ostler.aio import Inbox
from ostler.errors import BadEnvelope, Busy, EncodeFailed, MessageTooLarge, OstlerError, shortest
from ostler.messaging.context import Progress
from ostler.messaging.elements import MAX_ELEMENTS, check_elements
from ostler.messaging.envelope import (
    CAST,
    FANOUT,
    MAX_SIZE,
    RETRY,
    UNFIT,
    VERSION,
    Accepted,
    Beat,
    Credit,
    Request,
    ToServer,
    decode_to_server,
    encode_failure,
    encode_item,
    encode_items,
    encode_message,
    encode_reply,
    peek,
)
from ostler.messaging.quiet import QuietLog
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.rpc.keeping import Keeping
from ostler.messaging.rpc.progress_line import ProgressLine
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.transport import ClientId, Data, ServerLink
from ostler.types import CONTROL_TOPIC, Peer

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount
    from ostler.messaging.rpc.duplicates import Duplicates

_log = logging.getLogger(__name__)
_FIRST_BEAT = 1.0
"""A client that does not know the interval yet gets its first beat within so many seconds."""
_CASTS = CAST | FANOUT
_LARGE = 4096
"""Bytes of a request above which its sender is charged for it as long as it is under way."""


class RpcServer:
    """Answers the requests that come over one transport. On the loop's thread only.

    Args:
        link: The server's end of the transport.
        dispatcher: What decides and runs.
        inbox: Brings progress from threads to the loop.
        beat_interval: Seconds between two signs of life to each client that waits for an answer.
        max_message_size: The size limit in bytes, both ways.
        max_in_flight_per_peer: Requests that one connection may have under way; the topic `ostler` is always answered.
    """

    def __init__(
        self,
        link: ServerLink,
        dispatcher: Dispatcher,
        inbox: Inbox,
        *,
        beat_interval: float = 1.0,
        max_message_size: int = MAX_SIZE,
        max_in_flight_per_peer: int = 2000,
    ) -> None:
        self.link = link
        self.inbox = inbox
        self.clock = dispatcher.clock
        self.max_message_size = max_message_size
        self.max_elements = MAX_ELEMENTS
        """Values, lists and maps that one message may hold: decoding them costs more than their bytes do."""
        self.max_in_flight_per_peer = max_in_flight_per_peer
        self.beat_interval = beat_interval
        self.garbage: Counter[str] = Counter()
        self.stray: Counter[str] = Counter()
        """Messages about requests that this connection does not have: most of them came a moment too late."""
        self.keeping = Keeping()
        """How much is kept of requests that may come again."""
        self.duplicates: Duplicates | None = None
        """The requests that may come again; None until there has been one."""
        self.vanished = 0
        self._casts: Counter[Hashable] = Counter()
        self.thread = 0
        self._dispatcher = dispatcher
        self._calls: dict[ClientId, dict[int, WireCall]] = {}
        self._beats_due: dict[ClientId, float] = {}
        self._beats = Sweeper(self.clock, self._beat)
        self._leave_inbox: Callable[[], None] | None = None
        self._quiet = QuietLog(_log, self.clock)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.link.address

    def start(self) -> None:
        """Begin to answer."""
        self.thread = threading.get_ident()
        self.link.on_garbage = self._count
        self.link.may_linger = self._dispatcher.no_threads_at_work
        self.link.on_batch = self._await_quick
        self.link.on_gone = self._forget
        self.link.on_drained = self._dispatcher.resume_streams
        self.link.on_unkept = self._refuse_unkept
        self.link.admission = self._dispatcher.admission
        self._leave_inbox = self.inbox.around(self.link.hold, self.link.let_go)
        self.link.start(self._receive)

    def close(self) -> None:
        """Stop answering and let go of the address; what is under way is cancelled. May be called twice."""
        for client in list(self._calls):
            for call in list(self._calls.get(client, {}).values()):
                call.stop()
        self._calls.clear()
        if self._leave_inbox is not None:
            self._leave_inbox()
            self._leave_inbox = None
        self._beats.cancel()
        if self.duplicates is not None:
            self.duplicates.close()
        self.link.close()

    def stats(self) -> dict[str, Any]:
        """Return the counters: garbage by reason, clients that wait, calls under way, clients that vanished."""
        self._dispatcher.thread_replies.collect()
        return {
            "garbage": dict(self.garbage),
            "clients": len(self._calls),
            "in_flight": sum(map(len, self._calls.values())),
            "vanished": self.vanished,
            "stray": dict(self.stray),
            "duplicates": self.duplicates.stats() if self.duplicates is not None else {},
        }

    # ---------------------------------------------------------------- what comes in

    def _await_quick(self) -> None:
        self._dispatcher.await_quick(self.link.core_is_ours)

    def _receive(self, client: ClientId, data: Data, peer: Peer) -> None:
        try:
            if len(data) > self.max_message_size:
                raise self._too_large(data)
            if len(data) > self.max_elements:
                check_elements(data, self.max_elements, "a message")
            message = decode_to_server(data)
        except (BadEnvelope, MessageTooLarge) as error:
            self._refuse_garbage(client, peer, data, error)
            return
        if type(message) is not Request:
            self._control(client, message)
            return
        if self._dispatcher.thread_replies.sent:
            self._dispatcher.thread_replies.collect()  # whoever was replied to may use the number again
        under_way = self._calls.get(client)
        if under_way is not None and self._unwelcome(client, peer, message, under_way):
            return
        if len(data) > _LARGE and (memory := self.link.memory(client)) is not None and not memory.room(len(data)):
            self.refuse(message, peer, client, memory.full(f"{message.topic}.{message.method}"))
            return
        if message.flags & _CASTS and self._casts[peer.account] >= self.max_in_flight_per_peer:
            self.refuse(
                message, peer, client, self._busy(f"this caller has {self._casts[peer.account]} casts under way")
            )
        elif message.flags & RETRY and message.request_id:
            self._once(message, peer, client)
        else:
            self._dispatcher.dispatch(WireCall(message, peer, client, self))

    def _once(self, request: Request, peer: Peer, client: ClientId) -> None:
        """Run a request that may come again, if it is not here already; see `duplicates`."""
        if self.duplicates is None:
            from ostler.messaging.rpc.duplicates import Duplicates

            self.duplicates = Duplicates(self)
        call = self.duplicates.receive(request, peer, client)
        if call is not None:
            self._dispatcher.dispatch(call)

    def refuse(self, request: Request, peer: Peer, client: ClientId, error: OstlerError) -> None:
        """Refuse a request for a reason that the dispatcher does not know."""
        self._dispatcher.refuse(WireCall(request, peer, client, self), error)

    def cancel(self, call: Call, error: OstlerError) -> None:
        """End a request before its time, with this error."""
        self._dispatcher.cancel(call, error)

    def _control(self, client: ClientId, message: ToServer) -> None:
        """Cancel a call, or give a stream credit; one that has ended meanwhile, or never was, is only counted."""
        call = self._calls.get(client, {}).get(message.id)
        streams = self._dispatcher.streams
        if isinstance(message, Credit):
            if call is None or streams is None or not streams.credit(call, message.items):
                self.stray["credit"] += 1
        elif call is None:
            self.stray["cancel"] += 1
        else:
            self._dispatcher.cancel(call)

    def _too_large(self, data: Data) -> MessageTooLarge:
        return MessageTooLarge(
            f"a message has {len(data)} bytes, the limit is {self.max_message_size}",
            hint="send less at once, or raise `max_message_size` in [messaging]",
            size=len(data),
            limit=self.max_message_size,
        )

    def _unwelcome(self, client: ClientId, peer: Peer, request: Request, under_way: dict[int, WireCall]) -> bool:
        if request.id in under_way:
            error = BadEnvelope("a number is used for two requests at once", reason="duplicate")
            self._count_garbage(peer, error)
            self.link.garbage(client)
            return True
        if len(under_way) < self.max_in_flight_per_peer or request.topic == CONTROL_TOPIC:
            return False
        self.refuse(request, peer, client, self._busy(f"this connection has {len(under_way)} requests under way"))
        return True

    def _busy(self, what: str) -> Busy:
        return Busy(
            f"{what} and may not have more",
            hint="wait for some of them",
            retry_after=1.0,
            limit=self.max_in_flight_per_peer,
        )

    def _refuse_garbage(self, client: ClientId, peer: Peer, data: Data, error: OstlerError) -> None:
        self._count_garbage(peer, error)
        head = peek(data)
        if len(head) > 2:
            self.link.send(client, encode_failure(head[2], error))
        self.link.garbage(client)

    def _refuse_unkept(self, client: ClientId, head: bytes, peer: Peer) -> None:
        """Tell a client that there was no room for its request, or for the answer to it."""
        memory = self.link.memory(client)
        found = peek(head)
        if memory is None or len(found) < 3 or not isinstance(found[2], int):
            return
        error = memory.full("a message")
        self._quiet.warning(f"memory {memory.name}", error.message)
        self.link.send(client, encode_failure(found[2], error))

    def _count_garbage(self, peer: Peer, error: OstlerError) -> None:
        self._count(peer, str(error.facts.get("reason", "large")), error.message)

    def _count(self, peer: Peer, reason: str, what: str) -> None:
        self.garbage[reason] += 1
        self._quiet.warning(reason, f"{peer.name} sent what is no request ({reason}): {what}")

    # ---------------------------------------------------------------- what goes out

    def send(self, client: ClientId, data: bytes) -> bool:
        """Send to a client; what a client that has gone had under way is stopped."""
        there = self.link.send(client, data)
        if not there:
            self._forget(client)
        return there

    def registered(self, call: WireCall) -> None:
        """Take note of a call that did not end at once: its client gets beats, and may cancel it.

        Casts are only counted, for who sent them: they go on when their connection has gone.
        """
        client = call.client
        if call.request.flags & _CASTS:
            self._casts[call.peer.account] += 1
            return
        under_way = self._calls.get(client)
        if under_way is None:
            under_way = self._calls[client] = {}
            due = self.clock.monotonic() + min(_FIRST_BEAT, self.beat_interval)
            self._beats_due[client] = due
            self._beats.wanted(due)
        under_way[call.request.id] = call

    def ended(self, call: WireCall) -> None:
        """Forget a call."""
        if call.request.flags & _CASTS:
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
        self._beats_due.pop(call.client, None)

    def _forget(self, client: ClientId) -> None:
        self._beats_due.pop(client, None)
        calls = self._calls.pop(client, None)
        if not calls:
            return
        self.vanished += 1
        for call in calls.values():
            call.orphaned()

    def _beat(self, now: float) -> float | None:
        for client, due in list(self._beats_due.items()):
            if due > now:
                continue
            self._beats_due[client] = now + self.beat_interval
            # Settled calls are left out: whoever still waits for one has missed its answer and is to know.
            ids = [number for number, call in self._calls[client].items() if not call.settled]
            self.send(client, encode_message(Beat(VERSION, ids, self.beat_interval)))
        return min(self._beats_due.values(), default=None)


class WireCall(Call):
    """A request that came over the transport."""

    _progress: ProgressLine | None = None
    _memory: MemoryAccount | None = None
    _relays_cast = False

    def __init__(self, request: Request, peer: Peer, client: ClientId, server: RpcServer) -> None:
        self.request = request
        self.peer = peer
        self.client = client
        self.server = server

    def relay(self, request: Request, *, is_cast: bool) -> None:
        """See `Call.relay`."""
        self.asked = self.where
        self.request = request
        self._relays_cast = is_cast

    def pack(self, result: object) -> bytes:
        """See `Call.pack`."""
        request = self.request
        if self._relays_cast:
            return self.acceptance(int(result) if isinstance(result, int) else 1)
        return encode_reply(request.id, result, self.server.max_message_size, request.topic, request.method)

    def pack_item(self, item: object, number: int) -> bytes:
        """See `Call.pack_item`."""
        return encode_item(item, number, self.server.max_message_size, self.where)

    def items(self, first: int, items: list[bytes]) -> None:
        """See `Call.items`."""
        self.server.send(self.client, encode_items(self.request.id, first, items))

    def reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        if self._progress is not None:
            self._progress.flush()
        self.server.send(self.client, packed)

    @property
    def replies_from_threads(self) -> bool:
        """See `Call.replies_from_threads`."""
        return self.server.link.threads_send

    def reply_from_thread(self, packed: bytes, claim: Callable[[], bool]) -> bool:
        """See `Call.reply_from_thread`."""
        if self._progress is not None:
            return False  # what is left of it goes out before the reply, and the loop knows what that is
        return self.server.link.send_from_thread(self.client, packed, claim)

    def fail(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self.server.send(self.client, self.failure(error))

    def failure(self, error: OstlerError) -> bytes:
        """Return an error as it goes to the caller."""
        try:
            packed = encode_failure(self.request.id, error)
        except UNFIT:  # its class has names or a string that cannot be encoded
            return encode_failure(self.request.id, EncodeFailed(f"the error of {self.where} cannot go over the wire"))
        if len(packed) <= self.server.max_message_size:
            return packed
        return encode_failure(self.request.id, shortest(error))

    def accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        self.server.send(self.client, self.acceptance(reached))

    def acceptance(self, reached: int) -> bytes:
        """Return the acceptance of a cast as it goes to the caller."""
        return encode_message(Accepted(VERSION, self.request.id, reached))

    def orphaned(self) -> None:
        """Take note that the caller has gone: there is nobody to tell, and the work is to stop. On the loop."""
        self.claim()
        self.stop()

    def advance(self, progress: Progress) -> None:
        """See `Call.advance`."""
        if self._progress is None:
            self._progress = ProgressLine(self)
        self._progress.put(progress)

    def registered(self) -> None:
        """See `Call.registered`."""
        if len(self.request.arguments) > _LARGE and (memory := self.server.link.memory(self.client)) is not None:
            self._memory = memory
            memory.add(len(self.request.arguments))
        self.server.registered(self)

    def ended(self) -> None:
        """See `Call.ended`."""
        if self._memory is not None:
            self._memory.release(len(self.request.arguments))
            self._memory = None
        self.server.ended(self)

    def check_room(self) -> None:
        """See `Call.check_room`."""
        memory = self.server.link.memory(self.client)
        if memory is not None and not memory.room(0):
            raise memory.full(self.where)

    @property
    def congested(self) -> bool:
        """See `Call.congested`."""
        return self.server.link.congested(self.client)
