"""The publisher's end of events: an XPUB that looks at each subscription."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from ostler.messaging.tcp.server_socket import ListenOptions, ServerSocket
from ostler.messaging.tcp.sessions import MAX_FRAME_OVERHEAD, TcpSession
from ostler.messaging.tcp.socket_options import NOBLOCK
from ostler.messaging.tcp.socket_reader import SocketReader
from ostler.messaging.wire.peer_quotas import RateLimiter
from ostler.messaging.wire.transport import CONTROL_PREFIX, Admission, EventHandler

if TYPE_CHECKING:
    from ostler.messaging.tcp.socket_options import Context
    from ostler.types import Peer

_log = logging.getLogger(__name__)
_EVENTS = int(zmq.EVENTS)
_MAX_PREFIX_SIZE = 512
_MAX_PREFIXES = 1024
_PREFIX_COST, _PREFIX_COST_PER_BYTE = 400, 50
"""Bytes that a subscription takes, and for each of its own: ZeroMQ keeps a tree with a node for each."""
_MAX_SUBSCRIPTION_SIZE = 16 * 1024
"""Bytes of a message that no subscription has; one more costs the connection."""
_INVALID_RATE, _INVALID_BURST = 20.0, 200.0
"""Invalid messages of one key each second, and at once; one more costs the connection."""
_LOOP_TIME_RATE, _LOOP_TIME_BURST = 0.25, 2.0
"""Seconds of the loop's time that the subscriptions and questions of one key may use each second, and at once."""
_MAX_UNREAD_BYTES = 1024 * 1024
"""Bytes of answers to questions, after which it is looked whether the connection reads them."""
_RECEIVE_HWM = 64
"""Subscriptions of one connection that ZeroMQ keeps for us."""
_READ_CHECK_INTERVAL = 16
"""After so many events ZeroMQ is made to look how much its subscribers have read."""


class TcpEventLink:
    """The publisher's end of all its subscribers.

    With XPUB_MANUAL a subscription counts only when we say so, and for the connection it came from.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        listen_options: How to.

    Raises:
        OstlerError: The address cannot be taken; see `ServerSocket`.
    """

    # From `start` on; nothing comes before that.
    _handler: EventHandler
    _admission: Admission

    def __init__(self, context: Context, address: str, listen_options: ListenOptions) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._closed = False
        self._reader: SocketReader | None = None
        self._subscribed_prefixes: Counter[bytes] = Counter()
        self._refused_prefixes: Counter[bytes] = Counter()
        self._prefixes_by_account: Counter[Hashable] = Counter()
        """How many prefixes ZeroMQ keeps for the connections of each key. They are limited: when they go, ZeroMQ takes
        them out of its tree one by one in the next call on the socket, some 10 microseconds each."""
        self._max_prefixes_per_account = listen_options.limits.max_prefixes_per_account
        self._events_since_check = 0
        # The method of the base class without the conveniences on top of it: this runs for each event.
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, self._socket)
        try:
            self._socket.set(zmq.XPUB_MANUAL, 1)
            self.server_socket = ServerSocket(
                self._socket,
                address,
                listen_options._replace(max_message_size=_MAX_SUBSCRIPTION_SIZE, receive_hwm=_RECEIVE_HWM),
            )
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.address = self.server_socket.address
        self._invalid_rate = RateLimiter(_INVALID_RATE, _INVALID_BURST)
        self._loop_time_rate = RateLimiter(_LOOP_TIME_RATE, _LOOP_TIME_BURST)

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._subscribed_prefixes)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        self._handler = handler
        self._admission = handler.admission
        self._reader = SocketReader(self._socket, self._receive_one)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        if self._closed:
            return
        self._events_since_check += 1
        if not self._events_since_check % _READ_CHECK_INTERVAL:
            # ZeroMQ looks only now and then how much its subscribers have read, and would drop what they have room for.
            self._get(_EVENTS)
        self._send(data, NOBLOCK)  # a subscriber that does not read loses it; XPUB never says Again
        if self._reader is not None:
            self._reader.check_after_send()

    def peers(self) -> list[Peer]:
        """See `SupportsPeers.peers`."""
        return self.server_socket.peers()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        self.server_socket.disconnect_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.server_socket.close()
        if self._reader is not None:
            self._reader.close()
        self._socket.close()

    def _receive_one(self) -> None:
        frame = self._socket.recv(NOBLOCK, copy=False)
        data = frame.bytes
        session = self.server_socket.get_session(frame)
        if not session.is_confirmed:
            self.server_socket.confirm_session(session, frame)
            session.owner = self
        session.received_bytes += len(data) + MAX_FRAME_OVERHEAD
        if session.is_cut and data[:1] != b"\0":
            return
        began = monotonic()
        try:
            self._handle_subscription(data[:1], data[1:], session)
        except Exception:  # noqa: BLE001 - a bug in the daemon must not stop the publisher
            _log.exception("a subscription could not be handled")
        self._charge_time(session, monotonic() - began)

    def _charge_time(self, session: TcpSession, seconds: float) -> None:
        """Charge a key for the time its subscription took: ZeroMQ wants them handled at once, so they cannot wait."""
        if not session.peer.key or session.closed or self._admission.is_admin(session.peer):
            return
        if not self._loop_time_rate.allows(session.account, seconds):
            self._handler.on_invalid_message(
                session.peer, "many", "subscriptions and questions took more than its share of the time"
            )
            session.disconnect()

    def _handle_subscription(self, verb: bytes, prefix: bytes, session: TcpSession) -> None:
        if verb == b"\0":
            self._socket.set(zmq.UNSUBSCRIBE, prefix)
            self._on_unsubscribed(prefix)
            if prefix in session.prefixes:
                self._count_prefixes(session.account, -1)
            session.release_prefix(prefix)
            return
        if verb != b"\1":
            self._report_invalid(session, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
        elif len(prefix) > _MAX_PREFIX_SIZE:
            self._report_invalid(
                session, "large", f"a subscription of {len(prefix)} bytes, the limit is {_MAX_PREFIX_SIZE}"
            )
        elif prefix.startswith(CONTROL_PREFIX):
            self._answer_question(session, prefix)
        elif self._handler.may_subscribe(session.peer):
            self._subscribe(session, prefix)
        else:
            self._refused_prefixes[prefix] += 1

    def _subscribe(self, session: TcpSession, prefix: bytes) -> None:
        if self._charge_prefix(session, prefix):
            self._socket.set(zmq.SUBSCRIBE, prefix)
            self._subscribed_prefixes[prefix] += 1

    def _charge_prefix(self, session: TcpSession, prefix: bytes) -> bool:
        """Charge for a prefix, and return whether there is room for it.

        ZeroMQ keeps each until its subscriber takes it back or goes, those of questions included.
        """
        if prefix in session.prefixes or session.closed:
            return True
        cost, memory = _PREFIX_COST + _PREFIX_COST_PER_BYTE * len(prefix), session.memory
        if (
            len(session.prefixes) >= _MAX_PREFIXES
            or self._prefixes_by_account[session.account] >= self._max_prefixes_per_account
        ):
            limits = f"{_MAX_PREFIXES} of a connection, {self._max_prefixes_per_account} of a key"
            self._report_invalid(session, "many", f"too many subscriptions, the limit is {limits}")
            return False
        if memory is not None and not memory.has_room(cost):
            self._report_invalid(session, "memory", memory.no_room_error("a subscription").message)
            return False
        self._count_prefixes(session.account, 1)
        session.charge_prefix(prefix, cost)
        return True

    def on_session_gone(self, session: TcpSession) -> None:
        """See `SessionOwner.on_session_gone`."""
        self._count_prefixes(session.account, -len(session.prefixes))

    def on_session_drained(self, session: TcpSession) -> None:
        """See `SessionOwner.on_session_drained`; ZeroMQ sends what waits for a subscriber."""

    def _count_prefixes(self, account: Hashable, change: int) -> None:
        self._prefixes_by_account[account] += change
        if not self._prefixes_by_account[account]:
            del self._prefixes_by_account[account]

    def _answer_question(self, session: TcpSession, prefix: bytes) -> None:
        """Answer a question: only the one who asked is subscribed to its key, and only for this one answer."""
        if not self._is_reading(session):
            self._report_invalid(session, "unread", "a question from a client that does not read the answers")
            return
        if not self._charge_prefix(session, prefix):
            return
        self._socket.set(zmq.SUBSCRIBE, prefix)
        for part in self._handler.answer_question(session.peer, prefix):
            message = prefix + b"\0" + part
            session.sent_bytes += len(message)
            self._send(message, NOBLOCK)
        self._socket.set(zmq.UNSUBSCRIBE, prefix)

    def _is_reading(self, session: TcpSession) -> bool:
        """Return whether a connection reads its answers; looked at after each so many bytes of them."""
        if session.sent_bytes < _MAX_UNREAD_BYTES or session.connection is None:
            return True
        traffic = session.connection.read_counters()
        if traffic is None or traffic.unacked_bytes > _MAX_UNREAD_BYTES // 4:
            return False
        session.sent_bytes = 0
        return True

    def _report_invalid(self, session: TcpSession, reason: str, description: str) -> None:
        self._handler.on_invalid_message(session.peer, reason, description)
        if not self._admission.is_admin(session.peer) and not self._invalid_rate.allows(session.account):
            session.disconnect()

    def _on_unsubscribed(self, prefix: bytes) -> None:
        """Record that one has gone: one of those that were refused, as long as there may be one."""
        counts = self._refused_prefixes if prefix in self._refused_prefixes else self._subscribed_prefixes
        counts[prefix] -= 1
        if counts[prefix] <= 0:
            del counts[prefix]
