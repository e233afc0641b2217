"""The interface between messages and the three transports: unix sockets, ports (`zmq`), and `memory`.

A transport moves bytes and knows who sent them; it does not know what they mean. One suite in `tests/contract` tests
what it must guarantee; a new transport has to pass it:

- a message arrives whole or not at all, and those of one sender in their order;
- the transport identifies each client, and no client can claim to be another;
- a lost link is reported once and soon, after everything that had arrived before;
- what a receiver does not read is dropped above a limit, and the sender never blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from ostler.errors import MessagingError, OstlerError
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import MemoryAccount, PeerQuotas

ClientId: TypeAlias = Hashable
"""Identifies one connection of one client; never reused while the server runs."""

Data: TypeAlias = bytes | memoryview
OnClientMessage: TypeAlias = Callable[[ClientId, Data, Peer], None]
OnMessage: TypeAlias = Callable[[Data], None]
OnLost: TypeAlias = Callable[[MessagingError], None]
"""Called with `ConnectionLost`, or with `DaemonNotRunning` when the server stopped before it had accepted anything."""

CONTROL_PREFIX = b"!"
"""Subscriptions that begin with this are questions: whoever makes one gets one answer under that very key."""


OnRefused: TypeAlias = Callable[[Peer, OstlerError], None]
"""Called for a peer that was not admitted, with the reason."""


class Admission(msgspec.Struct, frozen=True):
    """Decides who may connect, and who is served before others. Called on the loop's thread.

    Attributes:
        is_authorised: Returns whether a peer has a role here; one that has none is told so, and is not let in.
        is_pending: Returns whether a peer without a role may turn out to have one.
        is_admin: Returns whether a peer is an administrator.
    """

    is_authorised: Callable[[Peer], bool]
    is_pending: Callable[[Peer], bool]
    is_admin: Callable[[Peer], bool]


ALLOW_ALL = Admission(lambda _peer: True, lambda _peer: False, lambda _peer: False)
"""Who can connect is let in, and nobody is served before others."""


class TransportLimits(msgspec.Struct, frozen=True):
    """What a transport may take.

    Bytes of one message, messages that wait for one receiver, mode of unix sockets, clients connected at once; bytes
    that may wait for one that takes nothing, and seconds after which it counts as such; seconds for a handshake;
    subscriptions and questions of all connections of one key of a network.
    """

    max_message_size: int = 16 * 1024 * 1024
    max_queued: int = 10_000
    socket_mode: int = 0o666
    max_connections: int = 1000
    max_buffered_bytes: int = 4 * 1024 * 1024
    stall_timeout: float = 2.0
    handshake_timeout: float = 5.0
    max_prefixes_per_account: int = 4096


class LinkHandler(Protocol):
    """What a server's end asks and tells about its peers. Called on the loop's thread; must not raise."""

    @property
    def admission(self) -> Admission:
        """Who may connect; asked for once, when the link is started."""
        ...

    def on_invalid_message(self, peer: Peer, reason: str, description: str) -> None:
        """Record an invalid message.

        Args:
            peer: The sender.
            reason: One word that is counted.
            description: What was wrong.
        """
        ...

    def on_refused(self, peer: Peer, error: OstlerError) -> None:
        """Record that a peer was not admitted, with the reason, if the link itself decides on that."""
        ...


class ServerHandler(LinkHandler, Protocol):
    """Handles what comes over a `ServerLink`. Called on the loop's thread; must not raise."""

    def on_message(self, client: ClientId, data: Data, peer: Peer) -> None:
        """Handle a message of a client."""
        ...

    def on_batch_end(self) -> None:
        """Record that all messages that came together were handed over, if the link can send from threads."""
        ...

    def on_client_gone(self, client: ClientId) -> None:
        """Record that a client has disconnected, if the transport notices that; others find out when they send."""
        ...

    def on_client_drained(self, client: ClientId) -> None:
        """Record that everything that waited to be sent to a client has been sent."""
        ...

    def on_unbuffered(self, client: ClientId, head: bytes, peer: Peer) -> None:
        """Record that there was no memory for a message from or to a client, which begins with these bytes."""
        ...

    def can_spin(self) -> bool:
        """Return whether the loop may stay awake for a moment after a message, in the hope of another."""
        ...


class EventHandler(LinkHandler, Protocol):
    """Handles the subscriptions that come over an `EventLink`. Called on the loop's thread."""

    def may_subscribe(self, peer: Peer) -> bool:
        """Return whether the subscriptions of a peer count."""
        ...

    def answer_question(self, peer: Peer, question: bytes) -> list[bytes]:
        """Return the answer to a subscription that begins with `CONTROL_PREFIX`, in parts."""
        ...


class ServerLink(Protocol):
    """The server's end of all its clients. Used on the loop's thread only."""

    address: str

    can_send_from_thread: bool
    """Whether `send_from_thread` ever says True."""

    @property
    def is_core_free(self) -> bool:
        """Whether the loop may wait awake for a moment; False for a while after others wanted to run on its core."""
        ...

    def start(self, handler: ServerHandler) -> None:
        """Begin to accept clients and to hand over what they send."""
        ...

    def send(self, client: ClientId, data: bytes) -> bool:
        """Send to one client; return False when it has gone. To one that does not read, the message is dropped."""
        ...

    def is_congested(self, client: ClientId) -> bool:
        """Return whether so much waits for a client that nothing more should be made for it. Any thread."""
        ...

    def memory_account(self, client: ClientId) -> MemoryAccount | None:
        """Return who is charged for what a client makes the daemon hold; None for nobody, or one that has gone."""
        ...

    def report_invalid(self, client: ClientId) -> None:
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
            refused. A transport for which `can_send_from_thread` is false always says False.
        """
        ...

    def cork(self) -> None:
        """Keep what is sent from now on until `uncork`, if that saves something."""
        ...

    def uncork(self) -> None:
        """Send what was held."""
        ...

    def close(self) -> None:
        """Stop, and release the address. May be called twice."""
        ...


class EventLink(Protocol):
    """The publisher's end of all its subscribers. Used on the loop's thread only.

    A subscription that begins with `CONTROL_PREFIX` is answered with what `EventHandler.answer_question` returns, under
    that key, after all subscriptions that the same subscriber made before it; others count only when
    `EventHandler.may_subscribe` says so. All of the answer goes out before what is published next.
    """

    address: str

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody has subscribed to anything; may be wrong for who was refused."""
        ...

    def start(self, handler: EventHandler) -> None:
        """Begin to take subscriptions."""
        ...

    def publish(self, data: bytes) -> None:
        """Send to everybody who subscribed to what the message begins with; dropped for those who do not read."""
        ...

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of subscribers that are not allowed any more."""
        ...

    def close(self) -> None:
        """Stop, and release the address. May be called twice."""
        ...


class SyncLink(Protocol):
    """A client's end, blocking. Used on one thread at a time."""

    def receive_briefly(self) -> list[bytes]:
        """Return what comes within a moment (10 ms), and nothing as soon as it is known that the server has gone."""
        ...

    def is_alive(self) -> bool:
        """Return False when it is known by now that the server has gone; nothing is read for that."""
        ...

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send to the server.

        Args:
            data: The message.
            timeout: Seconds that it may take, also when the server takes it bit by bit; None for no limit to that.

        Raises:
            ConnectionLost: The server has gone.
            Busy: It does not take what is sent.
        """
        ...

    def receive(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds and return what has come; empty when nothing has.

        Raises:
            ConnectionLost: The server has gone, and everything that it had sent has been returned before.
            DaemonNotRunning: The same, for a server that had not taken anything.
        """
        ...

    def close(self) -> None:
        """Close; what was sent goes out. May be called twice."""
        ...

    def close_after_fork(self) -> None:
        """Release the connection in a process that was forked: nothing is sent, and the parent's goes on."""
        ...


class AsyncLink(Protocol):
    """A client's end on a loop; what comes goes to the callbacks given when it was opened."""

    def send(self, data: bytes) -> None:
        """Send to the server; raises as `SyncLink.send`."""
        ...

    def close(self) -> None:
        """Close without a call of `on_lost`. May be called twice."""
        ...

    def close_after_fork(self) -> None:
        """Release the connection in a process that was forked: nothing is sent, and the parent's goes on."""
        ...


@runtime_checkable
class SupportsPeers(Protocol):
    """An end of a server that can list who is connected."""

    def peers(self) -> list[Peer]:
        """Return the peer of each connection. On the loop's thread."""
        ...


@runtime_checkable
class SupportsSocketMode(Protocol):
    """A transport whose addresses are files."""

    def set_socket_mode(self, mode: int) -> None:
        """Give the files of the sockets another mode."""
        ...


@runtime_checkable
class SupportsSocketRestore(Protocol):
    """A transport whose addresses are files, which somebody may remove."""

    def restore_sockets(self, *, unreachable: bool = False) -> list[str]:
        """Bind again what was removed or replaced; return the addresses.

        Args:
            unreachable: Whether it is known that nobody can connect, whatever the files look like.

        Raises:
            Conflict: Another process listens there now.
            OstlerError: A socket cannot be bound.
        """
        ...


class AsyncTransport(Protocol):
    """Opens links for one loop: what `AsyncClient` needs of a transport. On that loop's thread."""

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link for calls on the running loop."""
        ...

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link that receives events on the running loop; nothing is sent on it."""
        ...

    def close(self) -> None:
        """Release what links share; every link has been closed before."""
        ...


class Transport(Protocol):
    """Opens links. Clients' links may be opened on any thread, servers' on the loop's.

    Opening a client's link raises `DaemonNotRunning` when nothing listens and `NotPermitted` when the user is not
    allowed to use the socket.
    """

    def serve_rpc(self, quotas: PeerQuotas | None = None) -> ServerLink:
        """Take the address for calls.

        Args:
            quotas: What its connections share with those of other links; None for quotas of their own.
        """
        ...

    def serve_events(self, quotas: PeerQuotas | None = None) -> EventLink:
        """Take the address for events; `quotas` as for calls."""
        ...

    def connect(self) -> SyncLink:
        """Open a link for calls."""
        ...

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link for calls on the running loop."""
        ...

    def subscribe(self, prefixes: Iterable[bytes]) -> SyncLink:
        """Open a link that receives events that begin with one of the prefixes; nothing is sent on it."""
        ...

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """Open a link that receives events on the running loop; nothing is sent on it."""
        ...

    def close(self) -> None:
        """Release what links share; every link has been closed before."""
        ...
