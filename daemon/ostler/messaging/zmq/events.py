"""The publisher's end of events: an XPUB that looks at each subscription."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from ostler.messaging.shares import RateLimits
from ostler.messaging.transport import CONTROL_PREFIX, EVERYBODY, OnGarbage, ignore_garbage
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.listen import Entrance, Listening
from ostler.messaging.zmq.options import NOBLOCK
from ostler.messaging.zmq.sessions import FRAME_MOST, Session
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.zmq.options import Context

_log = logging.getLogger(__name__)
_EVENTS = int(zmq.EVENTS)
_PREFIX_LIMIT = 512
_PREFIXES_LIMIT = 1024
_ALL_PREFIXES_LIMIT = 4096
"""Subscriptions and questions of all connections of one key: when they go, ZeroMQ takes them out of its tree one by one
in the next call on the socket, some 10 microseconds each."""
_PREFIX_COST, _PREFIX_COST_PER_BYTE = 400, 50
"""Bytes that a subscription takes, and for each of its own: ZeroMQ keeps a tree with a node for each."""
_LARGEST = 16 * 1024
"""Bytes of a message that no subscription has; one more costs the connection."""
_GARBAGE_RATE, _GARBAGE_BURST = 20.0, 200.0
"""Invalid messages of one key each second, and at once; one more costs the connection."""
_TIME_RATE, _TIME_BURST = 0.25, 2.0
"""Seconds of the loop's time that the subscriptions and questions of one key may use each second, and at once."""
_UNREAD = 1024 * 1024
"""Bytes of answers to questions, after which it is looked whether the connection reads them."""
_RECEIVE_QUEUE = 64
"""Subscriptions of one connection that ZeroMQ keeps for us."""
_LOOK_EVERY = 16
"""After so many events ZeroMQ is made to look how much its subscribers have read."""


class XPubLink:
    """The publisher's end of all its subscribers.

    With XPUB_MANUAL a subscription counts only when we say so, and for the connection it came from.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        how: How to.

    Raises:
        OstlerError: The address cannot be taken; see `Entrance`.
    """

    def __init__(self, context: Context, address: str, how: Listening) -> None:
        self.on_garbage: OnGarbage = ignore_garbage
        self.admission = EVERYBODY
        self._socket = context.socket(zmq.XPUB)
        self._closed = False
        self._drain: Drain | None = None
        self._admit: Callable[[Peer], bool] | None = None
        self._answer: Callable[[Peer, bytes], list[bytes]] | None = None
        self._subscribed: Counter[bytes] = Counter()
        self._refused: Counter[bytes] = Counter()
        self._of_account: Counter[Hashable] = Counter()
        """How many prefixes ZeroMQ keeps for the connections of each key."""
        self._sent = 0
        # The method of the base class without the conveniences on top of it: this runs for each event.
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        self._get: Callable[[int], Any] = partial(zmq.backend.Socket.get, self._socket)
        try:
            self._socket.set(zmq.XPUB_MANUAL, 1)
            self.entrance = Entrance(
                self._socket, address, how._replace(largest=_LARGEST, receive_queue=_RECEIVE_QUEUE)
            )
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.address = self.entrance.address
        self._garbage = RateLimits(_GARBAGE_RATE, _GARBAGE_BURST)
        self._time = RateLimits(_TIME_RATE, _TIME_BURST)

    @property
    def subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._subscribed)

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """See `EventLink.start`."""
        self._admit, self._answer = admit, answer
        if self.entrance.door is not None:
            self.entrance.door.admission = self.admission
        self._drain = Drain(self._socket, self._take)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        if self._closed:
            return
        self._sent += 1
        if not self._sent % _LOOK_EVERY:
            # ZeroMQ looks only now and then how much its subscribers have read, and would drop what they have room for.
            self._get(_EVENTS)
        self._send(data, NOBLOCK)  # a subscriber that does not read loses it; XPUB never says Again
        if self._drain is not None:
            self._drain.after_send()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        self.entrance.end_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.entrance.close()
        if self._drain is not None:
            self._drain.close()
        self._socket.close()

    def _take(self) -> None:
        frame = self._socket.recv(NOBLOCK, copy=False)
        data = frame.bytes
        session = self.entrance.session_of(frame)
        if not session.confirmed:
            self.entrance.confirm(session, frame)
            session.on_gone = self._gone
        session.heard += len(data) + FRAME_MOST
        if session.cut and data[:1] != b"\0":
            return
        began = monotonic()
        try:
            self._subscription(data[:1], data[1:], session)
        except Exception:  # noqa: BLE001 - a defect of ours must not take the publisher down
            _log.exception("a subscription could not be handled")
        self._charge(session, monotonic() - began)

    def _charge(self, session: Session, seconds: float) -> None:
        """Charge a key for the time its subscription took: ZeroMQ wants them handled at once, so they cannot wait."""
        if not session.peer.key or session.closed or self.admission.is_admin(session.peer):
            return
        if not self._time.allows(session.account, seconds):
            self.on_garbage(session.peer, "many", "more subscriptions and questions than its share of the time")
            session.end()

    def _subscription(self, verb: bytes, prefix: bytes, session: Session) -> None:
        if verb == b"\0":
            self._socket.set(zmq.UNSUBSCRIBE, prefix)
            self._unsubscribed(prefix)
            if prefix in session.prefixes:
                self._count(session.account, -1)
            session.uncharge(prefix)
            return
        peer = session.peer
        if verb != b"\1":
            self._invalid(session, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
        elif len(prefix) > _PREFIX_LIMIT:
            self._invalid(session, "large", f"a subscription of {len(prefix)} bytes, the limit is {_PREFIX_LIMIT}")
        elif self._admit is None or self._answer is None:
            return
        elif prefix.startswith(CONTROL_PREFIX):
            self._question(session, self._answer, prefix)
        elif self._admit(peer):
            self._subscribe(session, prefix)
        else:
            self._refused[prefix] += 1

    def _subscribe(self, session: Session, prefix: bytes) -> None:
        if self._keeps(session, prefix):
            self._socket.set(zmq.SUBSCRIBE, prefix)
            self._subscribed[prefix] += 1

    def _keeps(self, session: Session, prefix: bytes) -> bool:
        """Charge for a prefix, and return whether there is room for it.

        ZeroMQ keeps each until its subscriber takes it back or goes, those of questions included.
        """
        if prefix in session.prefixes or session.closed:
            return True
        cost, memory = _PREFIX_COST + _PREFIX_COST_PER_BYTE * len(prefix), session.memory
        if len(session.prefixes) >= _PREFIXES_LIMIT or self._of_account[session.account] >= _ALL_PREFIXES_LIMIT:
            limits = f"{_PREFIXES_LIMIT} of a connection, {_ALL_PREFIXES_LIMIT} of a key"
            self._invalid(session, "many", f"one subscription more than {limits}")
            return False
        if memory is not None and not memory.room(cost):
            self._invalid(session, "memory", memory.full("a subscription").message)
            return False
        self._count(session.account, 1)
        session.charge(prefix, cost)
        return True

    def _gone(self, session: Session) -> None:
        self._count(session.account, -len(session.prefixes))

    def _count(self, account: Hashable, more: int) -> None:
        self._of_account[account] += more
        if not self._of_account[account]:
            del self._of_account[account]

    def _question(self, session: Session, answer: Callable[[Peer, bytes], list[bytes]], prefix: bytes) -> None:
        """Answer a question: only the one who asked is subscribed to its key, and only for this one answer."""
        if not self._reads(session):
            self._invalid(session, "unread", "a question of one who does not read the answers")
            return
        if not self._keeps(session, prefix):
            return
        self._socket.set(zmq.SUBSCRIBE, prefix)
        for part in answer(session.peer, prefix):
            message = prefix + b"\0" + part
            session.sent += len(message)
            self._send(message, NOBLOCK)
        self._socket.set(zmq.UNSUBSCRIBE, prefix)

    def _reads(self, session: Session) -> bool:
        """Return whether a connection reads its answers; looked at after each so many bytes of them."""
        if session.sent < _UNREAD or session.connection is None:
            return True
        traffic = session.connection.traffic()
        if traffic is None or traffic.waiting > _UNREAD // 4:
            return False
        session.sent = 0
        return True

    def _invalid(self, session: Session, reason: str, what: str) -> None:
        self.on_garbage(session.peer, reason, what)
        if not self.admission.is_admin(session.peer) and not self._garbage.allows(session.account):
            session.end()

    def _unsubscribed(self, prefix: bytes) -> None:
        """Take note that one has gone: one of those that were refused, as long as there may be one."""
        counts = self._refused if prefix in self._refused else self._subscribed
        counts[prefix] -= 1
        if counts[prefix] <= 0:
            del counts[prefix]
