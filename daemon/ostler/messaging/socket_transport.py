"""The transport over ZeroMQ sockets: ROUTER and DEALER for calls, XPUB and SUB for events.

On unix sockets we speak its protocol ourselves (`ostler.messaging.unix`), and libzmq is not even loaded. On a network
(`tcp://`) libzmq speaks, and nobody talks without CURVE (`curve`); `zap` decides who may connect. A server's sockets
are driven from their descriptor by the loop: it is edge-triggered and means "look at the events", so everything is read
until nothing is left, and looked at again after each send. `server`, `events` and `loop` need asyncio, `blocking` does
not: the command imports only that. `transport_to` finds the daemon that a client connects to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.errors import InvalidInput, NotPermitted
from ostler.messaging.wire.transport import (
    AsyncLink,
    EventLink,
    OnLost,
    OnMessage,
    ServerLink,
    SyncLink,
    Transport,
    TransportLimits,
)

if TYPE_CHECKING:
    import zmq

    from ostler.messaging.tcp.authenticator import Authenticator
    from ostler.messaging.tcp.curve import CurveOptions
    from ostler.messaging.tcp.server_socket import ListenOptions
    from ostler.messaging.unix.listener import UnixListener
    from ostler.messaging.wire.peer_quotas import PeerQuotas


class SocketTransport:
    """Opens links over ZeroMQ.

    Args:
        rpc: The address for calls, `ipc:///run/ostler/rpc.sock` or `tcp://node1:7890`.
        events: The address for events.
        limits: What the sockets take.
        rpc_fd: A listening socket for calls that was handed over (socket activation); None to make one.
        events_fd: The same for events.
        curve: The keys and times of `tcp://` addresses, which cannot do without.
        authenticator: Decides who may connect to our own sockets; None to let in who can.
        context: The ZeroMQ context to use, which somebody else ends; None for one of our own.
    """

    def __init__(
        self,
        rpc: str,
        events: str = "",
        *,
        limits: TransportLimits | None = None,
        rpc_fd: int | None = None,
        events_fd: int | None = None,
        curve: CurveOptions | None = None,
        authenticator: Authenticator | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.rpc = rpc
        self.events = events
        self.limits = limits or TransportLimits()
        self.curve = curve
        self._listeners: list[UnixListener[Any]] = []
        self._rpc_fd = rpc_fd
        self._events_fd = events_fd
        self._authenticator = authenticator
        self._given_context = context
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._context_pid = 0
        self._inherited_contexts: list[zmq.Context[zmq.Socket[bytes]]] = []

    def _get_context(self) -> zmq.Context[zmq.Socket[bytes]]:
        import zmq  # libzmq, 11 ms: only with a network, here and below

        if self._context is not None and self._context_pid != os.getpid():
            # Its threads are the parent's, and to end it would wait for them: it is kept and left alone.
            self._inherited_contexts.append(self._context)
            self._context = None
        if self._context is None:
            self._context, self._context_pid = self._given_context or zmq.Context(), os.getpid()
        return self._context

    def serve_rpc(self, quotas: PeerQuotas | None = None) -> ServerLink:
        """See `Transport.serve_rpc`.

        Args:
            quotas: What its connections share with those of other links; on a network those of the authenticator count,
                if there is one.

        Raises:
            Conflict: Another daemon listens there.
            NotPermitted: The directory of the socket is not writable, or the port must not be used.
            InvalidInput: The address cannot be used.
        """
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.unix.server import UnixServerLink  # 28 ms: not for a client

            link = UnixServerLink(self.rpc, self.limits, self._rpc_fd, quotas=quotas)
            self._listeners.append(link.listener)
            return link
        from ostler.messaging.tcp.server import TcpServerLink  # libzmq

        port = TcpServerLink(self._get_context(), self.rpc, self._listen_options(quotas))
        self.rpc = port.address  # port 0 has become a real one
        return port

    def serve_events(self, quotas: PeerQuotas | None = None) -> EventLink:
        """See `Transport.serve_events`; `quotas` and what it raises as `serve_rpc`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.unix.publisher import UnixEventLink  # 25 ms: not for a client

            link = UnixEventLink(self.events, self.limits, self._events_fd, quotas=quotas)
            self._listeners.append(link.listener)
            return link
        from ostler.messaging.tcp.publisher import TcpEventLink  # libzmq

        port = TcpEventLink(self._get_context(), self.events, self._listen_options(quotas))
        self.events = port.address
        return port

    def set_socket_mode(self, mode: int) -> None:
        """Give the files of the unix sockets that we made another mode, as a reload does."""
        self.limits = msgspec.structs.replace(self.limits, socket_mode=mode)
        for listener in self._listeners:
            listener.set_mode(mode)

    def restore_sockets(self, *, unreachable: bool = False) -> list[str]:
        """See `SupportsSocketRestore.restore_sockets`."""
        return [each.address for each in self._listeners if each.restore(unreachable=unreachable)]

    def _listen_options(self, quotas: PeerQuotas | None) -> ListenOptions:
        from ostler.messaging.tcp.server_socket import ListenOptions  # libzmq

        if self._authenticator is not None:
            self._authenticator.start(self._get_context())
        # The public key of the server is for its clients: with it, the socket would be one of theirs.
        network = self.curve._replace(server_key="") if self.curve is not None else None
        return ListenOptions(self.limits, network, self._authenticator, quotas)

    def connect(self) -> SyncLink:
        """See `Transport.connect`."""
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.unix.sync_link import SyncUnixLink  # not for a daemon

            return SyncUnixLink(self.rpc, self.limits)
        from ostler.messaging.tcp.sync_link import SyncTcpLink, open_dealer  # libzmq

        return SyncTcpLink(open_dealer(self._get_context(), self.rpc, self.limits, self.curve))

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.connect_async`."""
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.unix.async_link import AsyncUnixLink  # 15 ms: asyncio, not for a sync client

            return AsyncUnixLink(self.rpc, self.limits, on_message, on_lost)
        from ostler.messaging.tcp.async_link import AsyncTcpLink  # libzmq
        from ostler.messaging.tcp.sync_link import open_dealer  # libzmq

        return AsyncTcpLink(open_dealer(self._get_context(), self.rpc, self.limits, self.curve), on_message, on_lost)

    def subscribe(self, prefixes: Iterable[bytes]) -> SyncLink:
        """See `Transport.subscribe`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.unix.sync_link import SyncUnixLink  # not for a daemon

            return SyncUnixLink(self.events, self.limits, prefixes)
        from ostler.messaging.tcp.sync_link import SyncTcpLink, open_subscriber  # libzmq

        return SyncTcpLink(open_subscriber(self._get_context(), self.events, self.limits, prefixes, self.curve))

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.subscribe_async`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.unix.async_link import AsyncUnixLink  # 15 ms: asyncio, not for a sync client

            return AsyncUnixLink(self.events, self.limits, on_message, on_lost, prefixes)
        from ostler.messaging.tcp.async_link import AsyncTcpLink  # libzmq
        from ostler.messaging.tcp.sync_link import open_subscriber  # libzmq

        return AsyncTcpLink(
            open_subscriber(self._get_context(), self.events, self.limits, prefixes, self.curve), on_message, on_lost
        )

    def close(self) -> None:
        """See `Transport.close`; waits for what was sent last, for as long as the sockets linger."""
        context, self._context = self._context, None
        if self._authenticator is not None:
            self._authenticator.close()
        if context is not None and context is not self._given_context and self._context_pid == os.getpid():
            context.term()


_MAX_KEY_FILE_SIZE = 4096
"""Bytes of a file with a key."""


def transport_to(
    address: str | None,
    root: str | None,
    max_message_size: int,
    server_key: str | None = None,
    secret_key: str | Path | None = None,
) -> Transport:
    """Return the transport to a daemon: the one at the address, else the one below the root, else the one here.

    Args:
        address: The daemon's address for calls; that of events is `events.sock` in the same directory, or the next
            port.
        root: The directory of `--root`.
        max_message_size: The size limit in bytes.
        server_key: The public key of a daemon on a network.
        secret_key: The client's own secret key there, or the path of its file.

    Raises:
        InvalidInput: The address or a key cannot be used.
        NotPermitted: The file of the secret key is not readable.
        ConfigurationError: The paths below the root cannot be used.
    """
    limits = TransportLimits(max_message_size=max_message_size)
    if address is not None and address.startswith("tcp://"):
        from ostler.messaging.tcp.bind import next_port  # only with a network

        network = _curve_options(address, server_key, secret_key)
        return SocketTransport(address, next_port(address), limits=limits, curve=network)
    if server_key or secret_key:
        raise InvalidInput("keys apply to network addresses only", hint="use an address such as tcp://node2:7890")
    if address is not None:
        from ostler.messaging.unix.bind import socket_path  # only for the path of a socket

        events = socket_path(address).with_name("events.sock")
        return SocketTransport(address, f"ipc://{events}", limits=limits)
    from ostler.config.paths import Paths  # 15 ms: not for a client that is given an address

    paths = Paths.for_client(root, os.environ)
    return SocketTransport(paths.rpc_address, paths.events_address, limits=limits)


def _curve_options(address: str, server_key: str | None, secret_key: str | Path | None) -> CurveOptions:
    # libzmq, 12 ms: only with a network.
    from ostler.messaging.tcp.curve import CurveOptions, check_public_key, keys_from_secret

    if not server_key or not secret_key:
        raise InvalidInput(
            f"{address} is a network address, which requires keys",
            hint="set `server_key` (from `ostler keys show` on that host) and `secret_key` (from `ostler keys new`)",
        )
    secret = _read_key(secret_key) if isinstance(secret_key, Path) else secret_key
    return CurveOptions(keys_from_secret(secret), check_public_key(server_key, address))


def _read_key(file: Path) -> str:
    from ostler.files import read_bounded  # 1 ms: only for keys in files

    try:
        return read_bounded(file, _MAX_KEY_FILE_SIZE).decode("ascii").strip()
    except PermissionError as error:
        raise NotPermitted(f"the secret key {file} cannot be read: {error.strerror}", path=file) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the secret key {file} cannot be read: {error}", path=file) from None
