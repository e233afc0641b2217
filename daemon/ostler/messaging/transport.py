"""The seam between messages and what carries them. Three stand behind it: unix sockets, ports (`zmq`), and `memory`.

A transport moves bytes and knows who sent them; it does not know what they mean. What it must promise is held by one
suite in `tests/contract`, which a new transport has to pass:

- a message arrives whole or not at all, and those of one sender in their order;
- who a client is, the transport knows by itself, and no client can say it is another;
- a link that is lost says so, once and soon, after everything that had arrived before;
- what a receiver does not take is dropped above a limit, and the sender is never held up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from ostler.errors import MessagingError, OstlerError
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount
    from ostler.messaging.shares import PeerShares

ClientId: TypeAlias = Hashable
"""Names one connection of one client; never used again for another as long as the server lives."""

Data: TypeAlias = bytes | memoryview
Receive: TypeAlias = Callable[[ClientId, Data, Peer], None]
OnMessage: TypeAlias = Callable[[Data], None]
OnLost: TypeAlias = Callable[[MessagingError], None]
"""Told `ConnectionLost`, or `NotRunning` for a server that was gone before it had taken anything."""

CONTROL_PREFIX = b"!"
"""Subscriptions that begin with this are questions: whoever makes one gets one answer under that very key."""


OnGarbage: TypeAlias = Callable[[Peer, str, str], None]
"""Told of what is no message at all: who sent it, one word that is counted, and what came in words."""
OnRefused: TypeAlias = Callable[[Peer, OstlerError], None]
"""Told of who was not let in, and why."""


OnUnkept: TypeAlias = Callable[[ClientId, bytes, Peer], None]
"""Told of a message, from or to a client, for which there was no room: its first bytes are given."""


def ignore_batch() -> None:
    """Stand in until somebody wants to be told."""


def ignore_gone(_client: ClientId) -> None:
    """Stand in until somebody wants to be told."""


def ignore_garbage(_peer: Peer, _reason: str, _what: str) -> None:
    """Stand in until somebody wants to be told."""


def ignore_unkept(_client: ClientId, _head: bytes, _peer: Peer) -> None:
    """Stand in until somebody wants to be told."""


def ignore_refused(_peer: Peer, _error: OstlerError) -> None:
    """Stand in until somebody wants to be told."""


class Admission(msgspec.Struct, frozen=True):
    """Who may connect, and who is served before others. Asked on the loop's thread.

    Attributes:
        knows: Returns whether a peer has a role here; one that has none is told so, and is not let in.
        undecided: Returns whether a peer without a role may turn out to have one.
        is_admin: Returns whether a peer is an administrator.
    """

    knows: Callable[[Peer], bool]
    undecided: Callable[[Peer], bool]
    is_admin: Callable[[Peer], bool]


EVERYBODY = Admission(lambda _peer: True, lambda _peer: False, lambda _peer: False)
"""Stands in until somebody knows better."""


class Limits(msgspec.Struct, frozen=True):
    """What a transport may take.

    Bytes of one message, messages that wait for one receiver, mode of unix sockets, clients connected at once.
    """

    max_message_size: int = 16 * 1024 * 1024
    queue: int = 10_000
    socket_mode: int = 0o666
    connections: int = 1000


class ServerLink(Protocol):
    """The server's end of all its clients. Used on the loop's thread only."""

    address: str
    on_garbage: OnGarbage
    may_linger: Callable[[], bool]
    """Asked whether the loop may stay awake for a moment after a message, in the hope of another."""
    on_batch: Callable[[], None]
    """Told when the messages that came together have been handed over."""
    on_gone: Callable[[ClientId], None]
    """Told of a client that has gone, by a transport that learns of it by itself; others find out when they send."""
    admission: Admission
    on_drained: Callable[[ClientId], None]
    """Told when nothing waits any more to be sent to a client for which something did."""
    on_unkept: OnUnkept

    threads_send: bool
    """Whether `send_from_thread` ever says True."""

    @property
    def core_is_ours(self) -> bool:
        """Whether the loop may wait awake for a moment; False for a while after others wanted to run on its core."""
        ...

    def start(self, receive: Receive) -> None:
        """Begin to hand over messages; `receive` must not raise."""
        ...

    def send(self, client: ClientId, data: bytes) -> bool:
        """Send to one client; return False when it has gone. To one that does not read, the message is dropped."""
        ...

    def congested(self, client: ClientId) -> bool:
        """Return whether so much waits for a client that nothing more should be made for it. Any thread."""
        ...

    def memory(self, client: ClientId) -> MemoryAccount | None:
        """Return who is charged for what a client makes the daemon hold; None for nobody, or one that has gone."""
        ...

    def garbage(self, client: ClientId) -> None:
        """Count a message that could not be decoded: a client that sends too many of them loses its connection."""
        ...

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of peers that are not allowed any more, after what was sent to them."""
        ...

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """Send to one client at once, if nothing has to go out to it before. Any thread but the loop's.

        Args:
            client: To whom.
            data: What.
            claim: Asked when nothing can come between any more, whether to send it; must not block.

        Returns:
            Whether it was sent, or need not be because the client has gone meanwhile. If not, `claim` was not asked or
            refused. A transport for which `threads_send` is false always says False.
        """
        ...

    def hold(self) -> None:
        """Keep what is sent from now on until `let_go`, if that saves something."""
        ...

    def let_go(self) -> None:
        """Send what was held."""
        ...

    def close(self) -> None:
        """Stop, and let go of the address. May be called twice."""
        ...


class EventLink(Protocol):
    """The publisher's end of all its subscribers. Used on the loop's thread only.

    A subscription that begins with `CONTROL_PREFIX` is answered with what `answer(peer, subscription)` returns, under
    that key, after all subscriptions that the same subscriber made before it; others count only when `admit(peer)` says
    so. All of the answer goes out before what is published next.
    """

    address: str
    on_garbage: OnGarbage
    admission: Admission

    @property
    def subscribers(self) -> bool:
        """Whether anybody has subscribed to anything; may be wrong for who was refused."""
        ...

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """Begin to take subscriptions."""
        ...

    def publish(self, data: bytes) -> None:
        """Send to everybody who subscribed to what the message begins with; dropped for those who do not read."""
        ...

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of subscribers that are not allowed any more."""
        ...

    def close(self) -> None:
        """Stop, and let go of the address. May be called twice."""
        ...


class Link(Protocol):
    """A client's end, blocking. Used on one thread at a time."""

    def receive_soon(self) -> list[bytes]:
        """Return what comes within a moment (10 ms), and nothing as soon as it is known that the server has gone."""
        ...

    def alive(self) -> bool:
        """Return False when it is known by now that the server has gone; nothing is read for that."""
        ...

    def send(self, data: bytes, longest: float | None = None) -> None:
        """Send to the server.

        Args:
            data: The message.
            longest: Seconds that it may take, also when the server takes it bit by bit; None for no limit to that.

        Raises:
            ConnectionLost: The server has gone.
            Busy: It does not take what is sent.
        """
        ...

    def receive(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds and return what has come; empty when nothing has.

        Raises:
            ConnectionLost: The server has gone, and everything that it had sent has been returned before.
            NotRunning: The same, for a server that had not taken anything.
        """
        ...

    def close(self) -> None:
        """Close; what was sent goes out. May be called twice."""
        ...

    def abandon(self) -> None:
        """Let go of the connection in a process that was forked: nothing is sent, and the parent's goes on."""
        ...


class AsyncLink(Protocol):
    """A client's end on a loop; what comes goes to the callbacks given when it was opened."""

    def send(self, data: bytes) -> None:
        """Send to the server; raises as `Link.send`."""
        ...

    def close(self) -> None:
        """Close without a call of `on_lost`. May be called twice."""
        ...

    def abandon(self) -> None:
        """Let go of the connection in a process that was forked: nothing is sent, and the parent's goes on."""
        ...


@runtime_checkable
class SocketModes(Protocol):
    """A transport whose addresses are files."""

    def set_socket_mode(self, mode: int) -> None:
        """Give the files of the sockets another mode."""
        ...


@runtime_checkable
class SocketFiles(Protocol):
    """A transport whose addresses are files, which somebody may remove."""

    def restore_sockets(self, *, unreachable: bool = False) -> list[str]:
        """Bind again what was removed or replaced; return the addresses.

        Args:
            unreachable: Whether it is known that nobody can connect, whatever the files look like.

        Raises:
            Conflict: Somebody else listens there now.
            OstlerError: A socket cannot be bound.
        """
        ...


class Transport(Protocol):
    """Opens links. Clients' links may be opened on any thread, servers' on the loop's.

    Opening a client's link raises `NotRunning` when nobody listens and `NotPermitted` when the socket may not be used.
    """

    on_refused: OnRefused
    """Told of each client that was not let in, by a transport that has a limit of them."""
    shares: PeerShares | None
    """What the connections of servers' ends share, set before there are any; None for shares of each end's own."""

    def serve_rpc(self) -> ServerLink:
        """Take the address for calls."""
        ...

    def serve_events(self) -> EventLink:
        """Take the address for events."""
        ...

    def connect(self) -> Link:
        """Open a link for calls."""
        ...

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link for calls on the running loop."""
        ...

    def subscribe(self, prefixes: Iterable[bytes]) -> Link:
        """Open a link that receives events that begin with one of the prefixes; nothing is sent on it."""
        ...

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link that receives events on the running loop; nothing is sent on it."""
        ...

    def close(self) -> None:
        """Let go of what links share; every link has been closed before."""
        ...
