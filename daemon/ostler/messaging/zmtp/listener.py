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
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeVar

from ostler.aio.round_robin import FIRST, NORMAL
from ostler.clock import Clock, SystemClock
from ostler.errors import Busy, NotPermitted
from ostler.files import make_directory
from ostler.messaging.quiet import QuietLog
from ostler.messaging.shares import PeerShares, RateLimits, make_shares
from ostler.messaging.transport import (
    EVERYBODY,
    Limits,
    OnGarbage,
    OnRefused,
    ignore_garbage,
    ignore_refused,
)
from ostler.messaging.zmtp.arrivals import Arrivals
from ostler.messaging.zmtp.channel import CHUNK, CONGESTED, Channel, Shared
from ostler.messaging.zmtp.talk import BUSY, NOT_PERMITTED, Part, Talk, TalkError, refusal
from ostler.messaging.zmtp.unix import BoundSocket, HandedOver, path_of
from ostler.types import Peer

_log = logging.getLogger(__name__)
_FULL = refusal(BUSY)
_NO_ROLE = refusal(NOT_PERMITTED)
_HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""
_CONNECTION_COST = 64 * 1024
"""Bytes that a connection is charged for what it may have sent of a small message, and for itself."""
_HANDSHAKE = 5.0
"""Seconds within which a connection has to say who it is."""
_ACCEPT_TIME = 0.002
"""Seconds for which connections are accepted in one turn of the loop."""
_FRAMES = 64
"""Frames that are taken apart at once."""
_CONNECT_RATE, _CONNECT_BURST = 200.0, 400.0
"""Connections of one user each second, and at once; root and the daemon's own user are not held to that."""
_GARBAGE_RATE, _GARBAGE_BURST = 20.0, 200.0
"""Invalid messages of one user each second, and at once; one more costs the connection."""
_RESERVED = 16
"""Connections beyond the limit for those who may do everything anyhow."""
_UNDECIDED_MOST = 64
"""Connections that wait for the user database to say which groups their users have."""
_UNDECIDED_RETRY = 0.02
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_DELAY = 0.5
_CREDENTIALS = struct.Struct("3i")


class Client:
    """One connection: a flow that reads, takes apart and has handled what its peer sends. On the loop's thread.

    Args:
        listener: Who accepted it.
        connected: Its socket.
        number: Names it; no other has the same.
        peer: Who it is.
    """

    def __init__(self, listener: Listener[Client], connected: socket.socket, number: int, peer: Peer) -> None:
        self.number = number
        self.peer = peer
        self.account: Hashable = peer.account
        self.rank = FIRST if listener.is_privileged(peer) else NORMAL
        memory = listener.shares.memory
        self.memory = memory.open(self.account, peer, privileged=self.rank == FIRST)
        self.memory.add(_CONNECTION_COST)
        self._listener = listener
        self._talk = Talk(listener.part.partners, listener.largest, self._reserve)
        self._messages: list[bytes] = []
        self._all_read = True
        self._in_turns = False
        self._closed = False
        self.channel = Channel(
            connected,
            _unused,
            self.ended,
            listener.shared,
            self.drained,
            memory=self.memory,
            on_readable=self._readable,
        )
        self.channel.write(listener.part.hello)
        self._timeout: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(_HANDSHAKE, self._too_slow)

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self._messages.clear()
        self._listener.shares.turns.remove(self)
        self.channel.close()
        self._talk.close()  # at once: this object is part of a cycle, and may live on for long
        self.memory.release(_CONNECTION_COST + self._talk.take_unreserved(all_of_it=True))
        self.memory.close()

    def set_rank(self, rank: int) -> None:
        """Serve it before others, or no more."""
        if rank != self.rank:
            turns = self._listener.shares.turns
            turns.remove(self)
            self.rank = rank
            self.memory.privileged = rank == FIRST
            if self._in_turns:
                turns.queue(self)

    def ended(self) -> None:
        """Close the connection, and have it forgotten."""
        self.close()
        self._listener.gone(self)

    def drained(self) -> None:
        """Take note that all that was sent is in the kernel's hands: go on with what was left until then."""
        self._resume()
        self._listener.on_drained(self)

    @property
    def congested(self) -> bool:
        """Whether so much waits for this peer that what it sends is left where it is."""
        return self.channel.unsent > CONGESTED

    @property
    def closed(self) -> bool:
        """Whether the connection has been closed."""
        return self._closed

    # ---------------------------------------------------------------- a flow

    def run(self, until: float) -> bool:
        """Handle what this peer has sent, until this moment; return whether there is more. See `Flow`."""
        if self._in_turns:
            self._in_turns = False
            if self.channel.hung_up():
                self.ended()  # nobody waits for the answers to the rest of what it sent
                return False
        while not self._closed:
            if self.congested:
                self.channel.pause()
                return False  # `drained` goes on
            if self._messages:
                self._handle(until)
            elif self._talk.more or not self._all_read:
                self._hear()
            else:
                self.channel.resume()
                return False
            if monotonic() >= until and (self._messages or self._talk.more or not self._all_read):
                self._in_turns = not self._closed
                return self._in_turns
        return False

    def _readable(self) -> None:
        self._all_read = False
        if self._listener.shares.turns.work(self):
            self._in_turns = True
            self.channel.pause()

    def _resume(self) -> None:
        if not self._closed and self.channel.paused:
            self._in_turns = True
            self._listener.shares.turns.queue(self)

    def _handle(self, until: float) -> None:
        messages = self._messages
        count = self._listener.receive(self, messages, until)
        if count >= len(messages):
            self._messages = []
        else:
            del messages[:count]
        if self._talk.unreserved and not self._messages:
            self.memory.release(self._talk.take_unreserved())

    def _hear(self) -> None:
        """Take apart what comes next."""
        talk, data = self._talk, b""
        if not talk.more:
            read = self.channel.read()
            self._all_read = read is None or len(read) < CHUNK
            if read == b"":
                self.ended()
            if not read:
                return
            data = read
        try:
            self._messages = talk.hear(data, _FRAMES)
        except MemoryError:
            # A part of what it sent is missing, and what follows would be read as another.
            _log.warning("a connection was given up, there is no memory for what it carries")
            self.ended()
            return
        except TalkError as error:
            self._listener.on_garbage(self.peer, str(error.facts["reason"]), error.message)
            self.ended()
            return
        if self._timeout is not None and talk.ready:
            self._timeout.cancel()
            self._timeout = None
        if talk.answers or talk.several or talk.unkept:
            self._answer(talk)

    def _answer(self, talk: Talk) -> None:
        if talk.answers and not self.channel.stuck:
            self.channel.write(b"".join(talk.answers))
        talk.answers.clear()
        several, talk.several = talk.several, 0
        for _ in range(several):
            self._listener.garbage(self, "frames", "a message of several frames")
        for head in talk.unkept:
            self._listener.no_room(self, head)
        talk.unkept.clear()

    def _reserve(self, size: int) -> bool:
        if not self.memory.room(size):
            return False
        self.memory.add(size)
        return True

    def _too_slow(self) -> None:
        self._timeout = None
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
        shares: What its connections share with those of the daemon's other sockets.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    def __init__(
        self,
        address: str,
        limits: Limits,
        fd: int | None,
        part: Part,
        kind: type[ClientT],
        clock: Clock | None = None,
        shares: PeerShares | None = None,
    ) -> None:
        self.address = address
        self.limits = limits
        self.part = part
        self.largest = limits.max_message_size * _HARD_SIZE_FACTOR
        self.shared = Shared()
        self.shares = shares or make_shares()
        self.refused = 0
        self.admission = EVERYBODY
        self.on_garbage: OnGarbage = ignore_garbage
        self.on_refused: OnRefused = ignore_refused
        self.on_gone: Callable[[ClientT], None] = _nothing
        self.on_drained: Callable[[ClientT], None] = _nothing
        self.no_room: Callable[[ClientT, bytes], None] = _no_room
        self.receive: Callable[[ClientT, list[bytes], float], int] = _nothing_heard
        self.clients: dict[int, ClientT] = {}
        self.closed = False
        self._kind = kind
        self._bound: BoundSocket | None = None
        self._handed_over: HandedOver | None = None
        self._mode = limits.socket_mode
        self._started = False
        if fd is None:
            self._bound = BoundSocket(path_of(address), limits.socket_mode)
            fd = self._bound.detach()
        else:
            self._handed_over = HandedOver(fd)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._of_process: Counter[Hashable] = Counter()
        self._of_account: Counter[Hashable] = Counter()
        self._undecided: list[tuple[socket.socket, Peer, float]] = []
        self._arrivals = Arrivals(self.shares.turns, self._take_in)
        self._connects = RateLimits(_CONNECT_RATE, _CONNECT_BURST)
        self._garbage = RateLimits(_GARBAGE_RATE, _GARBAGE_BURST)
        self._own_uid = os.geteuid()
        self._numbers = itertools.count(1)
        self._quiet = QuietLog(_log, clock or SystemClock())

    def start(self) -> None:
        """Begin to take clients in."""
        self._started = True
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
        self._arrivals.close()
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.close()

    def set_mode(self, mode: int) -> None:
        """Give the file of a socket that we made another mode."""
        self._mode = mode
        if self._bound is not None and not self.closed:
            self._bound.set_mode(mode)

    def restore(self, *, unreachable: bool = False) -> bool:
        """Bind the socket again if its file was removed or replaced; connections are not touched.

        Args:
            unreachable: Whether it is known that nobody can connect, whatever the file looks like.

        Returns:
            Whether it was bound again.

        Raises:
            Conflict: Somebody else listens there now.
            OstlerError: It cannot be bound; see `BoundSocket`.
        """
        place = self._bound or self._handed_over
        assert place is not None  # noqa: S101 - one of the two
        if self.closed or (place.is_in_place() and not unreachable):
            return False
        path = place.path
        if path is None:
            return False
        with suppress(OSError):  # what binds it says more
            make_directory(path.parent, 0o755)
        first = self._handed_over
        bound = first.bind_again(self._mode) if first is not None else BoundSocket(path, self._mode)
        before, self._socket = self._socket, socket.socket(fileno=bound.detach())
        self._socket.setblocking(False)
        self._bound = bound
        self._loop.remove_reader(before.fileno())
        before.close()
        if self._started:
            self._loop.add_reader(self._socket.fileno(), self._accept)
        return True

    def gone(self, client: ClientT) -> None:
        """Forget a client that has gone."""
        if self.clients.pop(client.number, None) is None:
            return
        for counter, key in ((self._of_process, client.peer.pid), (self._of_account, client.account)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self.on_gone(client)

    def is_privileged(self, peer: Peer) -> bool:
        """Return whether a peer is served before others: root, the daemon's own user, an administrator."""
        return peer.uid in (0, self._own_uid) or self.admission.is_admin(peer)

    def garbage(self, client: ClientT, reason: str, what: str) -> None:
        """Say and count that a client sent an invalid message."""
        self.on_garbage(client.peer, reason, what)
        self.count_garbage(client)

    def count_garbage(self, client: ClientT) -> None:
        """Count an invalid message; whose user sends too many loses the connection."""
        if client.rank != FIRST and not client.closed and not self._garbage.allows(client.account):
            client.ended()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of peers that are not allowed any more; the others are ranked anew."""
        for client in list(self.clients.values()):
            if not allowed(client.peer):
                client.ended()
            else:
                client.set_rank(FIRST if self.is_privileged(client.peer) else NORMAL)

    # ---------------------------------------------------------------- accepting

    def _accept(self) -> None:
        until = monotonic() + _ACCEPT_TIME
        while True:
            try:
                connected, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            self._admit(connected, _peer_of(connected))
            if monotonic() >= until:
                return

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno not in _NO_DESCRIPTORS:
            raise error
        self._quiet.warning("accept", f"{self.address} cannot take another client in: {error.strerror}")
        # The listener would be readable again at once, and for ever.
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(_RETRY_DELAY, self._accept_again)

    def _accept_again(self) -> None:
        if not self.closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _admit(self, connected: socket.socket, peer: Peer) -> None:
        """Open a connection now or when it is the turn of its user, unless that one connects too often."""
        if self.is_privileged(peer):
            self._take_in(connected, peer)
        elif self._connects.allows(peer.account):
            self._arrivals.add(connected, peer)
        else:
            self.refused += 1
            _send_off(connected, _FULL)
            self._quiet.warning(f"rate {peer.uid}", f"refused connections: {peer.name} connects too often")

    def _take_in(self, connected: socket.socket, peer: Peer) -> None:
        privileged = self.is_privileged(peer)
        if not privileged and not self.admission.knows(peer):
            if self.admission.undecided(peer) and len(self._undecided) < _UNDECIDED_MOST:
                self._wait_for_decision(connected, peer)
            else:
                self._refuse(connected, peer, _NO_ROLE, f"{peer.name} has no role here")
        elif not self._room(peer, privileged=privileged):
            text = f"{peer.name} (process {peer.pid}) is one client too many, {len(self.clients)} are connected"
            self._refuse(connected, peer, _FULL, f"{text}; see `max_connections` in [messaging]")
        else:
            self._open(connected, peer)

    def _open(self, connected: socket.socket, peer: Peer) -> None:
        number = next(self._numbers)
        client = self.clients[number] = self._kind(self, connected, number, peer)  # type: ignore[arg-type]  # of ours
        self._of_process[peer.pid] += 1
        self._of_account[client.account] += 1

    def _refuse(self, connected: socket.socket, peer: Peer, answer: bytes, why: str) -> None:
        self.refused += 1
        _send_off(connected, answer)
        self._quiet.warning(f"refused {peer.uid} {answer is _NO_ROLE}", f"refused a connection: {why}")
        self.on_refused(peer, NotPermitted(why) if answer is _NO_ROLE else Busy(why))

    def _wait_for_decision(self, connected: socket.socket, peer: Peer) -> None:
        """Keep a connection, unread, until the groups of its user are known."""
        self._undecided.append((connected, peer, self._loop.time() + _HANDSHAKE))
        if len(self._undecided) == 1:
            self._loop.call_later(_UNDECIDED_RETRY, self._decide)

    def _decide(self) -> None:
        waiting, self._undecided = self._undecided, []
        for connected, peer, until in waiting:
            if self.closed:
                connected.close()
            elif self.admission.knows(peer):
                self._open(connected, peer)
            elif not self.admission.undecided(peer):
                self._refuse(connected, peer, _NO_ROLE, f"{peer.name} has no role here")
            elif self._loop.time() >= until:
                self._refuse(connected, peer, _FULL, f"the groups of {peer.name} are not known yet")
            else:
                self._undecided.append((connected, peer, until))
        if self._undecided:
            self._loop.call_later(_UNDECIDED_RETRY, self._decide)

    def _room(self, peer: Peer, *, privileged: bool) -> bool:
        """Return whether a client is accepted: no process, and no user, gets more connections than are free.

        So one alone gets half of them, however many processes it starts. Who may do everything has some more, so that
        an operator gets in whatever happens, and its processes share them, and not the user.
        """
        # Of few connections few: each costs a descriptor.
        reserved = min(_RESERVED, 4 + self.limits.connections // 4) if privileged else 0
        free = self.limits.connections + reserved - len(self.clients)
        if free <= 0 or self._of_process[peer.pid] >= free:
            return False
        return privileged or self._of_account[peer.account] < free


def _send_off(connected: socket.socket, answer: bytes) -> None:
    connected.setblocking(False)
    try:
        connected.send(answer)
    except OSError:
        pass  # it has gone already
    connected.close()


def _peer_of(connected: socket.socket) -> Peer:
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(uid, gid, pid, f"uid {uid}")


def _unused(_data: bytes) -> None:
    """Stand in: a client reads by itself."""


def _nothing(_client: object) -> None:
    """Stand in until somebody wants to be told."""


def _no_room(_client: object, _head: bytes) -> None:
    """Stand in until somebody wants to be told."""


def _nothing_heard(_client: object, messages: list[bytes], _until: float) -> int:
    """Stand in until somebody listens."""
    return len(messages)
