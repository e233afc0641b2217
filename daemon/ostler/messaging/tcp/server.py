"""The server's end of calls: a ROUTER, which is one queue of all clients; each key has a queue and its turns here."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from ostler.aio.round_robin import HIGH_RANK, NORMAL_RANK, DeficitRoundRobin
from ostler.messaging.tcp.server_socket import ListenOptions, ServerSocket
from ostler.messaging.tcp.sessions import CONGESTION_LIMIT, MAX_FRAME_OVERHEAD, MIN_FRAME_OVERHEAD, TcpSession
from ostler.messaging.tcp.socket_options import NOBLOCK, SNDMORE_NOBLOCK
from ostler.messaging.tcp.socket_reader import SocketReader
from ostler.messaging.wire.peer_quotas import RateLimiter
from ostler.messaging.wire.transport import Admission, ClientId, OnClientMessage, ServerHandler

if TYPE_CHECKING:
    from ostler.messaging.tcp.sessions import TcpSession
    from ostler.messaging.tcp.socket_options import Context
    from ostler.messaging.wire.peer_quotas import MemoryAccount
    from ostler.types import Peer


_MAX_MESSAGES = 4000
"""Messages of one key that wait at most."""
_MESSAGE_OVERHEAD = 256
"""Bytes that a message which waits is charged beside its own."""

MessageHandler = Callable[["TcpSession", bytes], None]


class Backlog:
    """The messages of one account that wait: a flow. On the loop's thread only.

    Args:
        session: A connection of the account.
        scheduler: Whose turn it is.
        handle: Handles one message; must not raise.
        privileged: Whether the account is served before others.
    """

    def __init__(
        self, session: TcpSession, scheduler: DeficitRoundRobin, handle: MessageHandler, *, privileged: bool
    ) -> None:
        self.account: Hashable = session.account
        self.rank = HIGH_RANK if privileged else NORMAL_RANK
        self._scheduler = scheduler
        self._handle = handle
        self._next: tuple[TcpSession, bytes] | None = None
        self.messages: deque[tuple[TcpSession, bytes]] = deque()

    def enqueue(self, session: TcpSession, data: bytes) -> bool:
        """Have a message handled at once, or when it is its turn; return False when there is no room for it to wait."""
        if self.messages:
            return self._store(session, data)
        self._next = (session, data)
        if self._scheduler.run_or_queue(self) and self._next is not None:
            self._next = None
            return self._store(session, data)
        return True

    def run(self, until: float) -> bool:
        """See `Flow`."""
        if self._next is not None:
            (session, data), self._next = self._next, None
            self._handle(session, data)
        waiting = self.messages
        while waiting and monotonic() < until:
            session, data = waiting.popleft()
            if session.memory is None:
                continue  # it has gone: nobody waits for the answer
            session.queued_bytes -= len(data) + _MESSAGE_OVERHEAD
            session.memory.release(len(data) + _MESSAGE_OVERHEAD)
            self._handle(session, data)
        return bool(waiting)

    def set_rank(self, *, privileged: bool) -> None:
        """Serve it before others, or no more."""
        rank = HIGH_RANK if privileged else NORMAL_RANK
        if rank != self.rank:
            self._scheduler.remove(self)
            self.rank = rank
            if self.messages:
                self._scheduler.enqueue(self)

    def drop(self, session: TcpSession) -> None:
        """Take back what a connection that has gone was charged for what waits of it, and is dropped in its turn."""
        queued, session.queued_bytes = session.queued_bytes, 0
        if queued and session.memory is not None:
            session.memory.release(queued)

    def _store(self, session: TcpSession, data: bytes) -> bool:
        memory = session.memory
        if memory is None or len(self.messages) >= _MAX_MESSAGES or not memory.has_room(len(data) + _MESSAGE_OVERHEAD):
            return False
        session.queued_bytes += len(data) + _MESSAGE_OVERHEAD
        memory.charge(len(data) + _MESSAGE_OVERHEAD)
        self.messages.append((session, data))
        return True


_log = logging.getLogger(__name__)
_SPIN_TIME = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_RECEIVE_HWM = 64
"""Messages of one connection that ZeroMQ keeps for us; the rest waits in the kernel, and at the sender."""
_HEAD_SIZE = 256
"""Bytes of a message that say which request it is about."""
_SMALL_MESSAGE_SIZE = 4096
"""Bytes of a message that finds room beyond that of its account: it may be the one that says that there is none."""
_MIN_RECHECK_DELAY, _MAX_RECHECK_DELAY = 0.001, 0.1
"""Seconds until it is looked again how much waits for one who does not read, at first and at last."""
_INVALID_RATE, _INVALID_BURST = 20.0, 200.0
"""Invalid messages of one key each second, and at once; one more costs the connection."""
_OVERFLOW_RATE, _OVERFLOW_BURST = 20.0, 1000.0
"""The same, of messages for which there was no room to wait."""


class TcpServerLink:
    """The server's end of all its clients.

    Args:
        context: The ZeroMQ context.
        address: Where to listen.
        listen_options: How to.

    Raises:
        OstlerError: The address cannot be taken; see `ServerSocket`.
    """

    can_send_from_thread = False
    is_core_free = True
    # From `start` on; nothing comes before that.
    _handler: ServerHandler
    _admission: Admission
    _on_message: OnClientMessage

    def __init__(self, context: Context, address: str, listen_options: ListenOptions) -> None:
        self.dropped_count = 0
        self._socket = context.socket(zmq.ROUTER)
        self._closed = False
        self._reader: SocketReader | None = None
        self._backlogs: dict[Hashable, Backlog] = {}
        self._invalid_rate = RateLimiter(_INVALID_RATE, _INVALID_BURST)
        self._overflow_rate = RateLimiter(_OVERFLOW_RATE, _OVERFLOW_BURST)
        # The methods of the base class without the conveniences on top of them: these run for each message.
        self._recv: Callable[..., Any] = partial(zmq.backend.Socket.recv, self._socket)
        self._send: Callable[..., Any] = partial(zmq.backend.Socket.send, self._socket)
        try:
            self._socket.set(zmq.ROUTER_MANDATORY, 1)
            self.server_socket = ServerSocket(self._socket, address, listen_options._replace(receive_hwm=_RECEIVE_HWM))
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.address = self.server_socket.address
        self._sessions = self.server_socket.sessions
        self._sessions_by_client: dict[ClientId, TcpSession] = {}

    def start(self, handler: ServerHandler) -> None:
        """See `ServerLink.start`."""
        self._handler = handler
        self._admission = handler.admission
        self._on_message = handler.on_message
        self._reader = SocketReader(self._socket, self._receive_one, _SPIN_TIME, handler.can_spin)

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        session = self._sessions_by_client.get(client)
        if session is None or self._closed:
            return False
        size = len(data) + MIN_FRAME_OVERHEAD
        if session.sent_bytes + size > session.next_check_at_bytes and not self._can_buffer(session, size):
            self.dropped_count += 1
            if len(data) > _SMALL_MESSAGE_SIZE:
                self._handler.on_unbuffered(client, data[:_HEAD_SIZE], session.peer)
            return True
        try:
            self._send(client, SNDMORE_NOBLOCK)
            self._send(data, NOBLOCK)
        except zmq.Again:
            self.dropped_count += 1  # it does not read; its calls will see that they have been forgotten
            return True
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        session.sent_bytes += size
        if self._reader is not None:
            self._reader.check_after_send()
        return True

    def is_congested(self, client: ClientId) -> bool:
        """See `ServerLink.is_congested`; as of when it was looked at last."""
        session = self._sessions_by_client.get(client)
        if session is None:
            return False
        memory = session.memory
        return session.is_congested or (memory is not None and not memory.has_room(0))

    def memory_account(self, client: ClientId) -> MemoryAccount | None:
        """See `ServerLink.memory`."""
        session = self._sessions_by_client.get(client)
        return session.memory if session is not None else None

    def report_invalid(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""
        session = self._sessions_by_client.get(client)
        if session is not None:
            self._count_invalid(session)

    def peers(self) -> list[Peer]:
        """See `SupportsPeers.peers`."""
        return self.server_socket.peers()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        self.server_socket.disconnect_unless(allowed)
        for session in self._sessions_by_client.values():
            privileged = self._admission.is_admin(session.peer)
            if session.memory is not None:
                session.memory.is_privileged = privileged
            self._get_backlog(session).set_rank(privileged=privileged)

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`; a socket of libzmq belongs to one thread."""
        return False

    def cork(self) -> None:
        """See `ServerLink.hold`; libzmq does so by itself."""

    def uncork(self) -> None:
        """See `ServerLink.uncork`."""

    def close(self) -> None:
        """See `ServerLink.close`."""
        if self._closed:
            return
        self._closed = True
        self.server_socket.close()
        if self._reader is not None:
            self._reader.close()
        self._socket.close()

    # ---------------------------------------------------------------- what comes in

    def _receive_one(self) -> bool:
        """Take a message; return whether that is enough for this turn of the loop.

        That is so when something of the same connection was left waiting in the same turn: ZeroMQ goes round among the
        connections that have sent something, so that all the others have had their turn as well.
        """
        client = self._recv(NOBLOCK)
        frame = self._recv(NOBLOCK, False)
        session = self.server_socket.get_session(frame)
        if session.routing_id != client:
            self._attach_client(session, client, frame)
        data = frame.bytes
        session.received_bytes += len(data) + MAX_FRAME_OVERHEAD
        if session.is_cut:
            return False
        if frame.more:
            self._skip_rest(session)
            self._handler.on_invalid_message(session.peer, "frames", "a message of several frames")
            self._count_invalid(session)
            return False
        backlog = session.backlog or self._get_backlog(session)
        if not backlog.enqueue(session, data):
            self._refuse(session, data)
        if not backlog.messages:
            return False
        passes = self._reader.pass_count if self._reader is not None else 0
        again, session.last_pass = session.last_pass == passes, passes
        return again

    def _handle(self, session: TcpSession, data: bytes) -> None:
        if session.is_cut:
            return
        try:
            self._on_message(session.routing_id, data, session.peer)
        except Exception:  # noqa: BLE001 - a bug in the daemon must not stop the server
            _log.exception("a message could not be handled")

    def _attach_client(self, session: TcpSession, client: bytes, frame: zmq.Frame) -> None:
        """Record the routing id of a connection, with its first message.

        ZeroMQ gives each connection an id of its own, but lets a client choose another, such as that of one who has
        gone. So an id says nothing of who sends a message.
        """
        session.routing_id = client
        before = self._sessions_by_client.get(client)
        if before is not None and before is not session:
            self.on_session_gone(before)  # what the one before had in progress is nothing for this one
        self.server_socket.confirm_session(session, frame)
        if not session.closed:
            self._sessions_by_client[client] = session
            session.owner = self

    def on_session_gone(self, session: TcpSession) -> None:
        """See `SessionOwner.on_session_gone`."""
        backlog = self._backlogs.get(session.account)
        if backlog is not None:
            backlog.drop(session)
            if session.peer.key not in self._sessions.count_by_key:
                del self._backlogs[session.account]
        if self._sessions_by_client.get(session.routing_id) is session:
            del self._sessions_by_client[session.routing_id]
            if not self._closed:
                self._handler.on_client_gone(session.routing_id)

    def on_session_drained(self, session: TcpSession) -> None:
        """See `SessionOwner.on_session_drained`."""
        if session.routing_id is not None and not self._closed:
            self._handler.on_client_drained(session.routing_id)

    def _get_backlog(self, session: TcpSession) -> Backlog:
        found = self._backlogs.get(session.account)
        if found is None:
            privileged = self._admission.is_admin(session.peer)
            found = Backlog(session, self._sessions.quotas.scheduler, self._handle, privileged=privileged)
            if not session.closed:
                self._backlogs[session.account] = found
        session.backlog = found
        return found

    def _refuse(self, session: TcpSession, data: bytes) -> None:
        """Refuse what finds no room to wait; whose key goes on like that loses the connection."""
        if session.closed:
            return
        if self._overflow_rate.allows(session.account):
            self._handler.on_unbuffered(session.routing_id, data[:_HEAD_SIZE], session.peer)
        else:
            session.disconnect()

    def _count_invalid(self, session: TcpSession) -> None:
        if not self._admission.is_admin(session.peer) and not self._invalid_rate.allows(session.account):
            session.disconnect()

    def _skip_rest(self, session: TcpSession) -> None:
        """Drop a message of more than one frame: it is none of ours."""
        while self._socket.get(zmq.RCVMORE):
            session.received_bytes += len(self._recv(NOBLOCK, False).bytes) + MAX_FRAME_OVERHEAD

    # ---------------------------------------------------------------- what goes out

    def _can_buffer(self, session: TcpSession, size: int) -> bool:
        """Return whether something may be sent to one who may not have read all that was sent before."""
        self._measure_unsent(session)
        if session.unsent_bytes + size <= CONGESTION_LIMIT:
            return True
        session.is_congested = True
        self._schedule_recheck(session, _MIN_RECHECK_DELAY)
        memory = session.memory
        return (
            memory is None
            or memory.has_room(size)
            or (size <= _SMALL_MESSAGE_SIZE and session.unsent_bytes < 2 * CONGESTION_LIMIT)
        )

    def _measure_unsent(self, session: TcpSession) -> None:
        traffic = session.connection.read_counters() if session.connection is not None else None
        if traffic is not None:
            session.update_unsent(traffic)

    def _schedule_recheck(self, session: TcpSession, delay: float) -> None:
        """Look whether one who did not read does, soon: streams wait for that."""
        if not session.is_recheck_scheduled:
            session.is_recheck_scheduled = True
            asyncio.get_running_loop().call_later(delay, self._recheck, session, delay)

    def _recheck(self, session: TcpSession, delay: float) -> None:
        session.is_recheck_scheduled = False
        if session.closed or self._closed:
            return
        before = session.unsent_bytes
        self._measure_unsent(session)
        if session.is_congested:
            self._schedule_recheck(
                session, delay if session.unsent_bytes < before else min(2 * delay, _MAX_RECHECK_DELAY)
            )
