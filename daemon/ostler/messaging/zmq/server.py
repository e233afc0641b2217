"""The server's end of calls: a ROUTER, which is one queue of all clients; whose turn it is, we say."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from ostler.messaging.shares import RateLimits
from ostler.messaging.transport import (
    EVERYBODY,
    ClientId,
    OnGarbage,
    OnUnkept,
    Receive,
    ignore_batch,
    ignore_garbage,
    ignore_gone,
    ignore_unkept,
)
from ostler.messaging.zmq.backlog import Backlog
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.listen import Entrance, Listening
from ostler.messaging.zmq.options import NOBLOCK, SNDMORE_NOBLOCK
from ostler.messaging.zmq.sessions import CONGESTED, FRAME_LEAST, FRAME_MOST, Session

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount
    from ostler.messaging.zmq.options import Context
    from ostler.types import Peer

_log = logging.getLogger(__name__)
_LINGER = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_RECEIVE_QUEUE = 64
"""Messages of one connection that ZeroMQ keeps for us; the rest waits in the kernel, and at the sender."""
_HEAD_SIZE = 256
"""Bytes of a message that say which request it is about."""
_SMALL = 4096
"""Bytes of a message that finds room beyond that of its account: it may be the one that says that there is none."""
_LOOK_FIRST, _LOOK_LAST = 0.001, 0.1
"""Seconds until it is looked again how much waits for one who does not read, at first and at last."""
_GARBAGE_RATE, _GARBAGE_BURST = 20.0, 200.0
"""Invalid messages of one key each second, and at once; one more costs the connection."""
_OVERFLOW_RATE, _OVERFLOW_BURST = 20.0, 1000.0
"""The same, of messages for which there was no room to wait."""


class RouterLink:
    """The server's end of all its clients.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        how: How to.

    Raises:
        OstlerError: The address cannot be taken; see `Entrance`.
    """

    threads_send = False
    core_is_ours = True

    def __init__(self, context: Context, address: str, how: Listening) -> None:
        self.dropped = 0
        self.on_garbage: OnGarbage = ignore_garbage
        self.may_linger: Callable[[], bool] = lambda: True
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.admission = EVERYBODY
        self.on_drained: Callable[[ClientId], None] = ignore_gone
        self.on_unkept: OnUnkept = ignore_unkept
        self._socket = context.socket(zmq.ROUTER)
        self._closed = False
        self._drain: Drain | None = None
        self._receive: Receive = _ignore
        self._backlogs: dict[Hashable, Backlog] = {}
        self._garbage = RateLimits(_GARBAGE_RATE, _GARBAGE_BURST)
        self._overflow = RateLimits(_OVERFLOW_RATE, _OVERFLOW_BURST)
        # The methods of the base class without the conveniences on top of them: these run for each message.
        self._recv: Callable[..., Any] = partial(zmq.backend.Socket.recv, self._socket)
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        try:
            self._socket.set(zmq.ROUTER_MANDATORY, 1)
            self.entrance = Entrance(self._socket, address, how._replace(receive_queue=_RECEIVE_QUEUE))
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.address = self.entrance.address
        self._sessions = self.entrance.sessions
        self._by_client: dict[ClientId, Session] = {}

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        if self.entrance.door is not None:
            self.entrance.door.admission = self.admission
        self._drain = Drain(self._socket, self._take, _LINGER, self.may_linger)

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        session = self._by_client.get(client)
        if session is None or self._closed:
            return False
        size = len(data) + FRAME_LEAST
        if session.sent + size > session.sent_limit and not self._may_wait(session, size):
            self.dropped += 1
            if len(data) > _SMALL:
                self.on_unkept(client, data[:_HEAD_SIZE], session.peer)
            return True
        try:
            self._send(client, SNDMORE_NOBLOCK)
            self._send(data, NOBLOCK)
        except zmq.Again:
            self.dropped += 1  # it does not read; its calls will see that they have been forgotten
            return True
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        session.sent += size
        if self._drain is not None:
            self._drain.after_send()
        return True

    def congested(self, client: ClientId) -> bool:
        """See `ServerLink.congested`; as of when it was looked at last."""
        session = self._by_client.get(client)
        if session is None:
            return False
        memory = session.memory
        return session.congested or (memory is not None and not memory.room(0))

    def memory(self, client: ClientId) -> MemoryAccount | None:
        """See `ServerLink.memory`."""
        session = self._by_client.get(client)
        return session.memory if session is not None else None

    def garbage(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""
        session = self._by_client.get(client)
        if session is not None:
            self._count_garbage(session)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        self.entrance.end_unless(allowed)
        for session in self._by_client.values():
            privileged = self.admission.is_admin(session.peer)
            if session.memory is not None:
                session.memory.privileged = privileged
            self._backlog_of(session).set_rank(privileged=privileged)

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`; a socket of libzmq belongs to one thread."""
        return False

    def hold(self) -> None:
        """See `ServerLink.hold`; libzmq does so by itself."""

    def let_go(self) -> None:
        """See `ServerLink.let_go`."""

    def close(self) -> None:
        """See `ServerLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.entrance.close()
        if self._drain is not None:
            self._drain.close()
        self._socket.close()

    # ---------------------------------------------------------------- what comes in

    def _take(self) -> bool:
        """Take a message; return whether that is enough for this turn of the loop.

        That is so when something of the same connection was left waiting in the same turn: ZeroMQ goes round among the
        connections that have sent something, so that all the others have had their turn as well.
        """
        client = self._recv(NOBLOCK)
        frame = self._recv(NOBLOCK, False)
        session = self.entrance.session_of(frame)
        if session.client != client:
            self._attach(session, client, frame)
        data = frame.bytes
        session.heard += len(data) + FRAME_MOST
        if session.cut:
            return False
        if frame.more:
            self._skip_rest(session)
            self.on_garbage(session.peer, "frames", "a message of several frames")
            self._count_garbage(session)
            return False
        backlog = session.backlog or self._backlog_of(session)
        if not backlog.put(session, data):
            self._refuse(session, data)
        if not backlog.waiting:
            return False
        passes = self._drain.passes if self._drain is not None else 0
        again, session.lap = session.lap == passes, passes
        return again

    def _handle(self, session: Session, data: bytes) -> None:
        if session.cut:
            return
        try:
            self._receive(session.client, data, session.peer)
        except Exception:  # noqa: BLE001 - a defect of ours must not take the server down
            _log.exception("a message could not be handled")

    def _attach(self, session: Session, client: bytes, frame: zmq.Frame) -> None:
        """Take note of the routing id of a connection, with its first message.

        ZeroMQ gives each connection an id of its own, but lets a client choose another, such as that of one who has
        gone. So an id says nothing of who sends a message.
        """
        session.client = client
        before = self._by_client.get(client)
        if before is not None and before is not session:
            self._gone(before)  # what the one before had under way is nothing for this one
        self.entrance.confirm(session, frame)
        if not session.closed:
            self._by_client[client] = session
            session.on_gone = self._gone
            session.on_drained = self._drained

    def _gone(self, session: Session) -> None:
        backlog = self._backlogs.get(session.account)
        if backlog is not None:
            backlog.drop(session)
            if session.peer.key not in self._sessions.of_key:
                del self._backlogs[session.account]
        if self._by_client.get(session.client) is session:
            del self._by_client[session.client]
            if not self._closed:
                self.on_gone(session.client)

    def _drained(self, session: Session) -> None:
        if session.client is not None and not self._closed:
            self.on_drained(session.client)

    def _backlog_of(self, session: Session) -> Backlog:
        found = self._backlogs.get(session.account)
        if found is None:
            privileged = self.admission.is_admin(session.peer)
            found = Backlog(session, self._sessions.shares.turns, self._handle, privileged=privileged)
            if not session.closed:
                self._backlogs[session.account] = found
        session.backlog = found
        return found

    def _refuse(self, session: Session, data: bytes) -> None:
        """Refuse what finds no room to wait; whose key goes on like that loses the connection."""
        if session.closed:
            return
        if self._overflow.allows(session.account):
            self.on_unkept(session.client, data[:_HEAD_SIZE], session.peer)
        else:
            session.end()

    def _count_garbage(self, session: Session) -> None:
        if not self.admission.is_admin(session.peer) and not self._garbage.allows(session.account):
            session.end()

    def _skip_rest(self, session: Session) -> None:
        """Drop a message of more than one frame: it is none of ours."""
        while self._socket.get(zmq.RCVMORE):
            session.heard += len(self._recv(NOBLOCK, False).bytes) + FRAME_MOST

    # ---------------------------------------------------------------- what goes out

    def _may_wait(self, session: Session, size: int) -> bool:
        """Return whether something may be sent to one who may not have read all that was sent before."""
        self._measure(session)
        if session.unsent + size <= CONGESTED:
            return True
        session.congested = True
        self._look_soon(session, _LOOK_FIRST)
        memory = session.memory
        return memory is None or memory.room(size) or (size <= _SMALL and session.unsent < 2 * CONGESTED)

    def _measure(self, session: Session) -> None:
        traffic = session.connection.traffic() if session.connection is not None else None
        if traffic is not None:
            session.measure(traffic)

    def _look_soon(self, session: Session, delay: float) -> None:
        """Look whether one who did not read does, soon: streams wait for that."""
        if not session.looked_for:
            session.looked_for = True
            asyncio.get_running_loop().call_later(delay, self._look, session, delay)

    def _look(self, session: Session, delay: float) -> None:
        session.looked_for = False
        if session.closed or self._closed:
            return
        before = session.unsent
        self._measure(session)
        if session.congested:
            self._look_soon(session, delay if session.unsent < before else min(2 * delay, _LOOK_LAST))


def _ignore(_client: ClientId, _data: object, _peer: object) -> None:
    """Stand in until the server has started."""
