"""The server's end of calls on a unix socket: what ZeroMQ calls a ROUTER."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable

from ostler.clock import Clock, SystemClock
from ostler.messaging.quiet import QuietLog
from ostler.messaging.transport import ClientId, Limits, OnGarbage, Receive, ignore_batch, ignore_garbage, ignore_gone
from ostler.messaging.zmq.unix import BoundSocket, path_of
from ostler.messaging.zmtp.channel import Channel, new_buffer
from ostler.messaging.zmtp.talk import Talk, TalkError, frame, hello, refusal
from ostler.types import Peer

_log = logging.getLogger(__name__)
_CLIENTS = frozenset({b"DEALER", b"REQ"})
_HELLO = hello(b"ROUTER")
_FULL = refusal(b"500")
"""The code that ZeroMQ's own doorkeepers use for something that may pass."""
_HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""
_HANDSHAKE = 5.0
"""Seconds within which a connection has to say who it is."""
_ACCEPTS = 100
_RESERVED = 16
"""Connections beyond the limit for those who may do everything anyhow."""
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 0.5
_LINGER = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_CREDENTIALS = struct.Struct("3i")


class UnixServerLink:
    """The server's end of all its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        clock: The source of time.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    def __init__(self, address: str, limits: Limits, fd: int | None = None, clock: Clock | None = None) -> None:
        self.address = address
        self.dropped = 0
        self.refused = 0
        self.on_garbage: OnGarbage = ignore_garbage
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.may_linger: Callable[[], bool] = lambda: True
        self.limits = limits
        self.buffer = new_buffer()
        self._bound: BoundSocket | None = None
        if fd is None:
            self._bound = BoundSocket(path_of(address), limits.socket_mode)
            fd = self._bound.detach()
        self._listener = socket.socket(fileno=fd)
        self._listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._clients: dict[int, _Client] = {}
        self._of_process: Counter[int] = Counter()
        self._own_uid = os.geteuid()
        self._numbers = itertools.count(1)
        self._held: dict[_Client, None] | None = None
        self._receive: Receive = _ignore
        self._awake_until = 0.0
        self._stays_awake = False
        self._closed = False
        self._quiet = QuietLog(_log, clock or SystemClock())

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        found = self._clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is None:
            return False
        channel = found.channel
        if channel.stuck:
            self.dropped += 1  # it does not read; its calls will see that they have been forgotten
            return True
        if self._held is not None and found not in self._held:
            self._held[found] = None
            channel.hold()
        channel.write(frame(data))
        return True

    def hold(self) -> None:
        """See `ServerLink.hold`."""
        self._held = {}

    def let_go(self) -> None:
        """See `ServerLink.let_go`."""
        held, self._held = self._held, None
        for client in held or ():
            client.channel.let_go()
        if held:
            self.linger()

    def close(self) -> None:
        """See `ServerLink.close`."""
        if self._closed:
            return
        self._closed = True
        if self._bound is not None:
            self._bound.unlink()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def linger(self) -> None:
        """Have the loop look for more instead of going to sleep, for a moment: a wake-up costs more than a short call.

        Not while threads have work: they need what the loop would use up.
        """
        if not self.may_linger():
            return
        self._awake_until = self._loop.time() + _LINGER
        if not self._stays_awake:
            self._stays_awake = True
            self._loop.call_soon(self._stay_awake)

    def arrived(self, client: _Client, messages: list[bytes]) -> None:
        """Hand over what a client sent; what it is sent meanwhile goes out together."""
        number, peer, channel = client.number, client.peer, client.channel
        channel.hold()
        try:
            for message in messages:
                self._receive(number, message, peer)
            self.on_batch()
        except Exception:  # noqa: BLE001 - a defect of ours must not take the server down
            _log.exception("a message could not be handled")
        finally:
            channel.let_go()
        self.linger()

    def gone(self, client: _Client) -> None:
        """Forget a client that has gone."""
        if self._clients.pop(client.number, None) is not None:
            self._of_process[client.peer.pid] -= 1
            if not self._of_process[client.peer.pid]:
                del self._of_process[client.peer.pid]
            self.on_gone(client.number)

    def _stay_awake(self) -> None:
        if self._closed or self._loop.time() >= self._awake_until or not self.may_linger():
            self._stays_awake = False
        else:
            self._loop.call_soon(self._stay_awake)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connected, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            self._take_in(connected)

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno not in _NO_DESCRIPTORS:
            raise error
        self._quiet.warning("accept", f"{self.address} cannot take another client in: {error.strerror}")
        # The listener would be readable again at once, and for ever.
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _take_in(self, connected: socket.socket) -> None:
        peer = _peer_of(connected)
        if not self._room(peer):
            self.refused += 1
            text = f"{peer.name} (process {peer.pid}) is one client too many, {len(self._clients)} are connected"
            self._quiet.warning("connections", f"{text}; see `max_connections` in [messaging]")
            _send_off(connected)
            return
        number = next(self._numbers)
        self._clients[number] = _Client(self, connected, number, peer)
        self._of_process[peer.pid] += 1

    def _room(self, peer: Peer) -> bool:
        """Return whether a client is let in: no process gets more connections than are free.

        So one alone gets half of them. Root and our own user have some more, so that an operator gets in whatever
        happens.
        """
        reserved = _RESERVED if peer.uid in (0, self._own_uid) else 0
        free = self.limits.connections + reserved - len(self._clients)
        return free > 0 and self._of_process[peer.pid] < free


class _Client:
    """One connection."""

    def __init__(self, server: UnixServerLink, connected: socket.socket, number: int, peer: Peer) -> None:
        self.number = number
        self.peer = peer
        self._server = server
        self._talk = Talk(_CLIENTS, server.limits.max_message_size * _HARD_SIZE_FACTOR)
        self.channel = Channel(connected, self._hear, self._ended, server.buffer)
        self.channel.write(_HELLO)
        self._impatience: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(_HANDSHAKE, self._too_slow)

    def close(self) -> None:
        """Close the connection."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        self.channel.close()

    def _hear(self, data: bytes) -> None:
        talk = self._talk
        try:
            messages = talk.hear(data)
        except TalkError as error:
            self._server.on_garbage(self.peer, str(error.facts["reason"]), error.message)
            self._ended()
            return
        if self._impatience is not None and talk.ready:
            self._impatience.cancel()
            self._impatience = None
        if messages:
            self._server.arrived(self, messages)
        if talk.answers or talk.several:
            self._rest(talk)

    def _rest(self, talk: Talk) -> None:
        for answer in talk.answers:
            self.channel.write(answer)
        talk.answers.clear()
        for _ in range(talk.several):
            self._server.on_garbage(self.peer, "frames", "a message of several frames")
        talk.several = 0

    def _too_slow(self) -> None:
        self._impatience = None
        self._server.on_garbage(self.peer, "handshake", f"nothing that begins a conversation in {_HANDSHAKE:g} s")
        self._ended()

    def _ended(self) -> None:
        self.close()
        self._server.gone(self)


def _send_off(connected: socket.socket) -> None:
    connected.setblocking(False)
    try:
        connected.send(_FULL)
    except OSError:
        pass  # it has gone by itself
    connected.close()


def _peer_of(connected: socket.socket) -> Peer:
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(uid, gid, pid, f"uid {uid}")


def _ignore(_client: ClientId, _data: object, _peer: object) -> None:
    """Stand in until the server has started."""
