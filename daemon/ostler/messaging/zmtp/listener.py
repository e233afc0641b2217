"""Takes clients in on a unix socket: who they are, how many there may be, and whether they speak the protocol."""

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
from typing import Generic, TypeVar

from ostler.clock import Clock, SystemClock
from ostler.errors import Busy
from ostler.messaging.quiet import QuietLog
from ostler.messaging.transport import Limits, OnGarbage, OnRefused, ignore_garbage, ignore_refused, take_for_known
from ostler.messaging.zmtp.channel import Channel, Shared
from ostler.messaging.zmtp.talk import Part, Talk, TalkError, refusal
from ostler.messaging.zmtp.unix import BoundSocket, path_of
from ostler.types import Peer

_log = logging.getLogger(__name__)
_FULL = refusal(b"500")
"""The code that ZeroMQ's own doorkeepers use for something that may pass."""
_HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""
STRANGERS_SHARE = 64 * 1024
"""Bytes of a message of a peer that is nobody here, and of what waits for it: it is only told that it is nobody."""
_HANDSHAKE = 5.0
"""Seconds within which a connection has to say who it is."""
_ACCEPTS = 100
_RESERVED = 16
"""Connections beyond the limit for those who may do everything anyhow."""
_NOBODY = -1
"""Instead of a process: all peers together who are nobody here."""
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 0.5
_CREDENTIALS = struct.Struct("3i")


class Client:
    """One connection. On the loop's thread.

    Args:
        listener: Who took it in.
        connected: Its socket.
        number: Names it; no other has the same.
        peer: Who it is.
    """

    counts_as = 0
    """The process whose share of the connections it has part of, or `_NOBODY`."""

    def __init__(self, listener: Listener[Client], connected: socket.socket, number: int, peer: Peer) -> None:
        self.number = number
        self.peer = peer
        self._listener = listener
        self._talk = Talk(listener.part.partners, min(STRANGERS_SHARE, listener.largest), self._most)
        self.channel = Channel(connected, self._hear, self.ended, listener.shared, self.drained)
        self.channel.write(listener.part.hello)
        self._impatience: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(_HANDSHAKE, self._too_slow)

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        self.channel.close()

    def ended(self) -> None:
        """Close the connection, and have it forgotten."""
        self.close()
        self._listener.gone(self)

    def drained(self) -> None:
        """Take note that all that was sent is in the kernel's hands."""

    def _hear(self, data: bytes) -> None:
        talk = self._talk
        try:
            messages = talk.hear(data)
        except TalkError as error:
            self._listener.on_garbage(self.peer, str(error.facts["reason"]), error.message)
            self.ended()
            return
        if self._impatience is not None and talk.ready:
            self._impatience.cancel()
            self._impatience = None
        if messages:
            self._listener.receive(self, messages)
        if talk.answers or talk.several:
            self._rest(talk)

    def _rest(self, talk: Talk) -> None:
        for answer in talk.answers:
            if not self.channel.stuck:
                self.channel.write(answer)
        talk.answers.clear()
        for _ in range(talk.several):
            self._listener.on_garbage(self.peer, "frames", "a message of several frames")
        talk.several = 0

    def _most(self) -> int:
        listener = self._listener
        return listener.largest if listener.knows(self.peer) else min(STRANGERS_SHARE, listener.largest)

    def _too_slow(self) -> None:
        self._impatience = None
        self._listener.on_garbage(self.peer, "handshake", f"nothing that begins a conversation in {_HANDSHAKE:g} s")
        self.ended()


ClientT = TypeVar("ClientT", bound=Client)


class Listener(Generic[ClientT]):
    """A listening unix socket and its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        part: What the socket is.
        kind: The class of its clients.
        clock: The source of time.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    def __init__(
        self, address: str, limits: Limits, fd: int | None, part: Part, kind: type[ClientT], clock: Clock | None = None
    ) -> None:
        self.address = address
        self.limits = limits
        self.part = part
        self.largest = limits.max_message_size * _HARD_SIZE_FACTOR
        self.shared = Shared()
        self.refused = 0
        self.knows: Callable[[Peer], bool] = take_for_known
        self.on_garbage: OnGarbage = ignore_garbage
        self.on_refused: OnRefused = ignore_refused
        self.on_gone: Callable[[ClientT], None] = _nothing
        self.receive: Callable[[ClientT, list[bytes]], None] = _nothing_heard
        self.clients: dict[int, ClientT] = {}
        self.closed = False
        self._kind = kind
        self._bound: BoundSocket | None = None
        if fd is None:
            self._bound = BoundSocket(path_of(address), limits.socket_mode)
            fd = self._bound.detach()
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._of_process: Counter[int] = Counter()
        self._own_uid = os.geteuid()
        self._numbers = itertools.count(1)
        self._quiet = QuietLog(_log, clock or SystemClock())

    def start(self) -> None:
        """Begin to take clients in."""
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Let go of the address and of all clients. May be called twice."""
        if self.closed:
            return
        self.closed = True
        if self._bound is not None:
            self._bound.unlink()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.close()

    def keep_only(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of peers that are not allowed any more; one who was nobody here may be somebody now."""
        for client in list(self.clients.values()):
            if not allowed(client.peer):
                client.ended()
            elif client.counts_as == _NOBODY and self.knows(client.peer):
                self._of_process[_NOBODY] -= 1
                client.counts_as = client.peer.pid
                self._of_process[client.counts_as] += 1

    def gone(self, client: ClientT) -> None:
        """Forget a client that has gone."""
        if self.clients.pop(client.number, None) is not None:
            self._of_process[client.counts_as] -= 1
            if not self._of_process[client.counts_as]:
                del self._of_process[client.counts_as]
            self.on_gone(client)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connected, _ = self._socket.accept()
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
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        if not self.closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _take_in(self, connected: socket.socket) -> None:
        peer = _peer_of(connected)
        process = peer.pid if self.knows(peer) else _NOBODY
        if not self._room(peer, process):
            self.refused += 1
            text = f"{peer.name} (process {peer.pid}) is one client too many, {len(self.clients)} are connected"
            self._quiet.warning("connections", f"{text}; see `max_connections` in [messaging]")
            self.on_refused(peer, Busy(text))
            _send_off(connected)
            return
        number = next(self._numbers)
        client = self.clients[number] = self._kind(self, connected, number, peer)  # type: ignore[arg-type]  # of ours
        client.counts_as = process
        self._of_process[process] += 1

    def _room(self, peer: Peer, process: int) -> bool:
        """Return whether a client is let in: no process gets more connections than are free.

        So one alone gets half of them, and those who are nobody here get half all together, however many processes they
        start. Root and our own user have some more, so that an operator gets in whatever happens.
        """
        # Of few connections few: each costs a descriptor.
        reserved = min(_RESERVED, 4 + self.limits.connections // 4) if peer.uid in (0, self._own_uid) else 0
        free = self.limits.connections + reserved - len(self.clients)
        return free > 0 and self._of_process[process] < free


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


def _nothing(_client: object) -> None:
    """Stand in until somebody wants to be told."""


def _nothing_heard(_client: object, _messages: list[bytes]) -> None:
    """Stand in until somebody listens."""
