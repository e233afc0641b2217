"""Who callers are that come another way than by Ostler's sockets, and the links for their requests."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ostler import fork
from ostler.aio import LoopQueue
from ostler.bounds import NAME_LIMIT, truncate
from ostler.errors import NotPermitted
from ostler.messaging.access.roles import CERTIFICATE_PREFIX, TOKEN_PREFIX, Access
from ostler.messaging.clients.async_client import AsyncClient
from ostler.messaging.gateway.caller import ANONYMOUS, VIA_GATEWAY, Caller
from ostler.messaging.gateway.gateway_client import GatewayClient
from ostler.messaging.gateway.links import GatewayEventLink, GatewayServerLink, GatewayTransport
from ostler.messaging.wire.peer_quotas import RateLimiter
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.errors import OstlerError
    from ostler.messaging.access.tokens import Token

_REFUSAL_RATE, _REFUSAL_BURST = 20.0, 100.0
"""Refusals a second, and at once, that are told to the daemon: who guesses tokens must not keep its loop busy."""
_MAX_CONNECTIONS = 256
"""Links of one loop that are kept for callers who may come again; what has something in progress is kept anyhow."""


class Authenticator(Protocol):
    """Knows whose the secrets of tokens are. Any thread."""

    def authenticate(self, secret: str, /) -> Token:
        """Return the token with this secret.

        Raises:
            NotPermitted: It is unknown, expired or revoked.
            StoreError: The tokens cannot be read.
        """
        ...


class GatewayPort(NamedTuple):
    """Where the gateway is connected to its daemon.

    Attributes:
        loop_queue: Passes work to the daemon's loop.
        server: The daemon's end for calls.
        events: The publisher's end.
        current_access: Returns the access rules in force. Any thread.
        tokens: Knows the tokens.
        record_refusal: Called on the daemon's loop when a caller was refused before its first request: who, what it
            wanted, and why not.
        timeout: Seconds for calls that name no deadline.
    """

    loop_queue: LoopQueue
    server: GatewayServerLink
    events: GatewayEventLink
    current_access: Callable[[], Access]
    tokens: Authenticator
    record_refusal: Callable[[Peer, str, OstlerError], None]
    timeout: float | None = 60.0


class _LoopSide:
    """What the gateway has on one loop: the queue to it, and the link of each caller. On that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Apart from the request in which it is first needed: what comes later is of others.
        self.queue = contextvars.Context().run(LoopQueue, loop)
        self.connections: OrderedDict[Peer, AsyncClient] = OrderedDict()

    def drop_idle(self) -> None:
        """Close links of callers that have not come for longest, and wait for nothing."""
        for peer, client in list(self.connections.items()):
            if len(self.connections) < _MAX_CONNECTIONS:
                return
            if not client.is_busy:
                del self.connections[peer]
                client.disconnect()


class Gateway:
    """Lets callers in that came another way than by Ostler's sockets, such as over HTTP: `self.gateway` of a manager.

    It says who a caller is, and gives it a client whose requests are judged, limited, audited and relayed by the
    daemon like those that come over its sockets. Any thread; blocks only for what its methods say. In a forked child it
    raises `RuntimeError`.

    Args:
        port: Where it is connected to its daemon.
    """

    anonymous = ANONYMOUS
    """Who has not said who it is: it may do nothing."""

    def __init__(self, port: GatewayPort) -> None:
        self.port = port
        """Where it is connected to its daemon."""
        self._sides: dict[asyncio.AbstractEventLoop, _LoopSide] = {}
        self._lock = threading.Lock()
        self._refusal_rate = RateLimiter(_REFUSAL_RATE, _REFUSAL_BURST)
        self.refused_count = 0
        """How often somebody came with a token that is not valid."""

    def caller_of_token(self, secret: str, *, origin: str = "") -> Caller:
        """Return who has a token.

        Reads the tokens from the database when it is first called, which blocks for about a millisecond.

        Args:
            secret: The token, as `ostler token new` has printed it.
            origin: Where the caller came from, for the audit log: an address, a path; empty when it is not known.

        Raises:
            NotPermitted: It is unknown, expired or revoked; the audit log says so, and not which secret it was.
            StoreUnavailable: The tokens cannot be read.
        """
        self._check_process()
        try:
            token = self.port.tokens.authenticate(secret)
        except NotPermitted as error:
            self._record_refusal(origin, error)
            raise
        principal = f"{TOKEN_PREFIX}{token.name}"
        return Caller(principal, token.role, _peer_of(principal, token.proof))

    def _record_refusal(self, origin: str, error: NotPermitted) -> None:
        self.refused_count += 1
        if self._refusal_rate.allows("token"):
            name = f"token from {truncate(origin, NAME_LIMIT)}" if origin else "unknown token"
            stranger = Peer(name=name, via=VIA_GATEWAY)
            self.port.loop_queue.post(partial(self.port.record_refusal, stranger, "token", error))

    def caller_of_user(self, uid: int, gid: int, pid: int) -> Caller:
        """Return who is behind a unix socket of the caller's own, by what the kernel says (`SO_PEERCRED`).

        Waits for a moment (8 ms at most) for the groups of a user that comes for the first time.

        Args:
            uid: The uid of the peer's process.
            gid: Its gid.
            pid: Its pid.
        """
        self._check_process()
        # Each process has a link of its own, for the audit log names it; all of a user share what is limited.
        peer = Peer(uid, gid, pid, f"uid {uid}", via=VIA_GATEWAY)
        return Caller(peer.name, self.port.current_access().role_of(peer), peer)

    def caller_of_certificate(self, name: str) -> Caller:
        """Return who has a client certificate, which the server has checked.

        Args:
            name: The name in the certificate, `alice` for what `[access]` calls `cert:alice`.

        Returns:
            The caller; its role is None when `[access]` does not list the name.

        Raises:
            NotPermitted: The name is empty, too long, or cannot be printed.
        """
        self._check_process()
        if not name or len(name) > NAME_LIMIT or not name.isprintable():
            raise NotPermitted(
                f"a client certificate has the name {truncate(name, NAME_LIMIT)!r}, which no caller can have",
                hint="a name has 1 to 255 characters that can be printed",
            )
        principal = f"{CERTIFICATE_PREFIX}{name}"
        peer = _peer_of(principal)
        return Caller(principal, self.port.current_access().role_of(peer), peer)

    def client(self, caller: Caller) -> GatewayClient:
        """Return what makes requests as a caller. Costs next to nothing: make one for each request that comes in."""
        return GatewayClient(self, caller)

    def connection(self, peer: Peer) -> AsyncClient:
        """Return the link of a caller on the running loop. For `GatewayClient`."""
        self._check_process()
        loop = asyncio.get_running_loop()
        side = self._sides.get(loop) or self._add_side(loop)
        client = side.connections.get(peer)
        if client is not None:
            side.connections.move_to_end(peer)
            return client
        if len(side.connections) >= _MAX_CONNECTIONS:
            side.drop_idle()
        # Apart from the request in which it is first needed, whose variables it would keep alive.
        client = side.connections[peer] = contextvars.Context().run(self._connect, peer, side.queue)
        return client

    def _connect(self, peer: Peer, queue: LoopQueue) -> AsyncClient:
        port = self.port
        return AsyncClient(transport=GatewayTransport(port.server, port.events, peer, queue), timeout=port.timeout)

    def stats(self) -> dict[str, int]:
        """Return on how many loops callers are, their links there, and how often a token was refused. Any thread."""
        sides = [side for loop, side in list(self._sides.items()) if not loop.is_closed()]
        links = sum(len(side.connections) for side in sides)
        return {"loops": len(sides), "links": links, "refused": self.refused_count}

    def _add_side(self, loop: asyncio.AbstractEventLoop) -> _LoopSide:
        """Begin with a loop, and forget those that have been closed."""
        with self._lock:
            self._sides = {other: side for other, side in self._sides.items() if not other.is_closed()}
            side = self._sides[loop] = _LoopSide(loop)
        port = self.port
        port.loop_queue.post(port.server.drop_closed_loops)
        port.loop_queue.post(port.events.drop_closed_loops)
        return side

    @staticmethod
    def _check_process() -> None:
        if fork.in_child:
            raise fork.forked_child_error("the gateway")


def _peer_of(principal: str, proof: str = "") -> Peer:
    return Peer(name=principal, principal=principal, via=VIA_GATEWAY, proof=proof)
