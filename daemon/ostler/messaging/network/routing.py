"""Routes the requests of services: to this daemon, or to another one."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.availability import refusal_reason
from ostler.errors import (
    Busy,
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    MessagingError,
    MethodNotFound,
    NotPermitted,
    OstlerError,
    ServiceNotFound,
    is_a,
    join_words,
)
from ostler.messaging.clients.client_core import effective_timeout
from ostler.messaging.clients.retry import RetryState
from ostler.messaging.wire.envelope import FANOUT, LENIENT
from ostler.messaging.wire.request import CallRequest, ProgressCallback
from ostler.messaging.wire.request_context import Relayed, current_context
from ostler.redaction import Value
from ostler.types import CONTROL_TOPIC, ROLE_ORDER, MethodDescription, Role, ServiceState

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.network.peers import PeerDaemon, PeerSet
    from ostler.messaging.wire.envelope import Request
    from ostler.messaging.wire.request_context import Context
    from ostler.types import CapabilityReport, OperatorOverride, ServiceStatus

_RELAY_CREDIT = 64
"""Items of a stream that are on their way to who relays it: few, for its reader has a credit of its own."""
_NOT_STARTED_ERRORS = (DaemonNotRunning, Draining, Busy, ServiceNotFound, MethodNotFound)
"""Errors after which the work has certainly not started, so that another member may be tried."""


_SERVING_STATES = (ServiceState.UP, ServiceState.DEGRADED)
SendToPeer = Callable[["PeerDaemon", CallRequest, "RetryState | None"], Awaitable[Any]]
"""Sends a request to a peer, and returns its result."""
_MAX_LOST_REQUESTS = 1000
"""Requests of callers here that are remembered because an attempt was lost at some host; the oldest go first."""


class Router:
    """Chooses the daemon for each request. On the loop's thread, except for `is_local`.

    Args:
        host: The name of this host.
        is_open: Whether a topic is open in this daemon.
    """

    def __init__(self, host: str, is_open: Callable[[str], bool]) -> None:
        self.host = host
        self.peers: PeerSet | None = None
        self.forced_down: dict[tuple[str, str], OperatorOverride] = {}
        """The services of other hosts, by topic and host, that an operator said are down; not changed in place."""
        self._is_open = is_open
        self._round_robin: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._lost_requests: dict[str, RetryState] = {}

    def is_local(self, request: CallRequest | Request) -> bool:
        """Return whether this daemon itself is to serve a request, or to refuse it. Any thread."""
        if self.peers is None or request.host == self.host:
            return True
        if request.host:
            return False
        if request.flags & FANOUT:
            return not self.peers.peers_with(request.topic)
        return self._is_open(request.topic) or not self.peers.peers_with(request.topic)

    async def send_request(self, request: CallRequest, retry_state: RetryState | None = None) -> Any:
        """Have another daemon serve a request, and return its result.

        Args:
            request: The request.
            retry_state: What other attempts have been at, or will be; None for one that is made once.

        Raises:
            ServiceNotFound: The host is not known.
            DaemonNotRunning: It is away, or all are that have such a service.
            OstlerError: What the request came to.
        """
        request = await self.wait_reachable(request)
        return await (
            _send_to_peer(self._get_connected_peer(request), request, retry_state)
            if request.host
            else self._send_to_any(request, retry_state)
        )

    async def wait_reachable(self, request: CallRequest) -> CallRequest:
        """Have who is to serve a request tried at once if it is away, and wait for what comes of that.

        Returns:
            The request, with what is left of its time.

        Raises:
            ServiceNotFound: The host is not known.
            DaemonNotRunning: It is away. Of a request for no host in particular it is said later, with what ails the
                others.
        """
        if request.host:
            return _reduce_timeout(request, await _wait_reachable(self._get_peer(request), request))
        members = self._get_peers().peers_with(request.topic)
        if any(peer.accepts(request.topic) for peer in members):
            return request
        waits = await asyncio.gather(*(_wait_reachable(peer, request) for peer in members), return_exceptions=True)
        return _reduce_timeout(request, max((wait for wait in waits if isinstance(wait, float)), default=0.0))

    def open_stream(self, request: CallRequest, credit: int) -> AsyncItemStream:
        """Return what a method on another host yields; raises as `request`, before anything is sent; never waits."""
        peer = self._get_connected_peer(request) if request.host else self._choose_member(request)
        return peer.client.open_stream(request._replace(host=peer.host), credit)

    async def relay(
        self,
        ctx: Context,
        host: str,
        request: CallRequest,
        *,
        lenient: bool = True,
        retry_state: RetryState | None = None,
    ) -> Any:
        """Call or cast a method on another host on behalf of a caller of this daemon.

        The other daemon sees only the key of this one. So the caller must have the role here that the method
        requires there.

        Args:
            ctx: The caller's request. Its secrets are from now on those that the method there has among its arguments.
            host: The other host; empty for a member that takes the request, as `request` chooses it.
            request: What is asked there.
            lenient: Whether texts may stand for numbers, booleans and structures.
            retry_state: What other attempts have been at; see `retry_state_of`.

        Raises:
            NotPermitted: The caller lacks the role.
            OstlerError: As `request`.
        """
        request = request._replace(
            on_progress=_forward_progress(ctx), flags=request.flags | (LENIENT if lenient else 0)
        )

        async def send(peer: PeerDaemon, ask: CallRequest, repeat: RetryState | None) -> Any:
            return await _send_to_peer(await self._authorise_relay(ctx, peer.host, ask), ask, repeat)

        try:
            if host:
                return await _send_to_peer(await self._authorise_relay(ctx, host, request), request, retry_state)
            return await self._send_to_any(await self.wait_reachable(request), retry_state, send)
        finally:
            if retry_state is not None:
                self._remember_lost(retry_state)

    async def relay_stream(
        self, ctx: Context, host: str, request: CallRequest, *, lenient: bool = True
    ) -> AsyncItemStream:
        """Return what a method on another host yields, on behalf of a caller of this daemon; see `relay`."""
        peer = await self._authorise_relay(
            ctx, host or self._choose_member(await self.wait_reachable(request)).host, request
        )
        return peer.client.open_stream(request._replace(host=peer.host, flags=LENIENT if lenient else 0), _RELAY_CREDIT)

    def retry_state_of(self, request_id: str) -> RetryState:
        """Return what the attempts of a caller here have in common, so that a repeat goes where one was lost."""
        return self._lost_requests.pop(request_id, None) or RetryState(request_id)

    def _remember_lost(self, retry_state: RetryState) -> None:
        if retry_state.lost_host:
            self._lost_requests[retry_state.request_id] = retry_state
            if len(self._lost_requests) > _MAX_LOST_REQUESTS:
                del self._lost_requests[next(iter(self._lost_requests))]

    async def _authorise_relay(self, ctx: Context, host: str, request: CallRequest) -> PeerDaemon:
        """Return the peer, when the caller of this daemon may have there what it asks for."""
        topic, method = request.topic, request.method
        if ctx.peer.key or (topic == CONTROL_TOPIC and method in ("relay", "relay_stream")):
            # Over two hops, the daemon in the middle would lend its caller its own rights.
            raise NotPermitted(
                f"{ctx.peer.name} is not allowed to have {topic}.{method} relayed to {host}: only requests of local "
                "callers are relayed, and only once",
                hint="call the daemon on that host directly",
            )
        peer = self._get_peer(request._replace(host=host))
        await _wait_reachable(peer, request)
        described = await _describe_method(peer, request)
        ctx.secrets = _secret_values(request.arguments, described.secret)
        ctx.relayed = Relayed(host, f"{topic}.{method}", _check_role(ctx, host, described), described.changes)
        return peer

    def serving_hosts(self, topic: str) -> dict[str, float]:
        """Return the hosts that serve a topic now and can be reached, each with since when: this one since ever."""
        found = {self.host: 0.0} if self._is_open(topic) else {}
        if self.peers is not None:
            members = [peer for peer in self.peers.peers_with(topic) if peer.up]
            found |= {
                peer.host: peer.since
                for peer in members
                if peer.services[topic].state in _SERVING_STATES and (topic, peer.host) not in self.forced_down
            }
        return found

    async def fan_out(self, request: CallRequest, hosts: Collection[str] | None = None) -> int:
        """Bring a fanout to all members on other hosts that can be reached; return how many accepted it.

        Args:
            request: The fanout.
            hosts: The only hosts that it may reach; None for any.

        Raises:
            OstlerError: One of them could not take the request as it is, such as arguments that do not fit.
        """
        members = [peer for peer in self._get_peers().peers_with(request.topic) if peer.up]
        members = [peer for peer in members if hosts is None or peer.host in hosts]
        # Each is meant by name, so that none of them brings it to others in its turn.
        asked = (peer.client.send_request(request._replace(host=peer.host)) for peer in members)
        found = await asyncio.gather(*asked, return_exceptions=True)
        reached = 0
        for result in found:
            if isinstance(result, int):
                reached += result
            elif isinstance(result, BaseException) and not is_a(result, (*_NOT_STARTED_ERRORS, ConnectionLost)):
                raise result
        return reached

    async def authorise_fan_out(self, ctx: Context, request: CallRequest) -> list[str]:
        """Refuse a fanout of a caller of this daemon that one of the members on other hosts would not let it make.

        Returns:
            The hosts that it may reach: those that were asked for the role.

        Raises:
            NotPermitted: The caller lacks the role that the method requires on one of them; nothing has been sent.
            OstlerError: One of them has no such method.
        """
        members = [peer for peer in self._get_peers().peers_with(request.topic) if peer.up]
        found = await asyncio.gather(*(_describe_method(peer, request) for peer in members), return_exceptions=True)
        secret: set[str] = set()
        roles: dict[str, Role] = {}
        changes = False
        for peer, described in zip(members, found, strict=True):
            if isinstance(described, BaseException):
                if isinstance(described, DaemonNotRunning):  # it cannot be reached, so it is not asked either
                    continue
                raise described
            secret.update(described.secret)
            changes = changes or described.changes
            roles[peer.host] = _check_role(ctx, peer.host, described)
        ctx.secrets = _secret_values(request.arguments, secret)
        highest = max(roles.values(), key=lambda role: ROLE_ORDER[role], default=Role.VIEWER)
        ctx.relayed = Relayed("other hosts", f"{request.topic}.{request.method}", highest, changes)
        return list(roles)

    async def describe(self, topic: str, *, schema: bool = False) -> list[MethodDescription]:
        """Return the methods of a topic that is on other hosts alone, as one of its members says them.

        Raises:
            DaemonNotRunning: No member can be reached.
            OstlerError: It could not be asked.
        """
        ask = await self.wait_reachable(CallRequest(topic, "describe", {}))
        arguments = {"topic": topic, "schema": schema}
        request = CallRequest(
            CONTROL_TOPIC, "describe", arguments, self._choose_member(ask).host, result_type=list[MethodDescription]
        )
        found: list[MethodDescription] = await self._get_connected_peer(request).client.send_request(request)
        return found

    def _rotated_members(self, topic: str) -> list[PeerDaemon]:
        members = self._get_peers().peers_with(topic)
        first = next(self._round_robin[topic]) % len(members) if members else 0
        # One that is starting refuses what it cannot do yet, and one that is not well may do it all the same.
        return sorted([*members[first:], *members[:first]], key=lambda peer: not peer.is_available(topic))

    def _choose_member(self, request: CallRequest) -> PeerDaemon:
        members = self._rotated_members(request.topic)
        for peer in members:
            if peer.accepts(request.topic):
                return peer
        raise _no_host_error(request, [_unavailable_reason(peer, request.topic) for peer in members], DaemonNotRunning)

    async def _send_to_any(
        self, request: CallRequest, retry_state: RetryState | None, send: SendToPeer | None = None
    ) -> Any:
        members = self._rotated_members(request.topic)
        if retry_state is not None and retry_state.lost_host:
            members.sort(key=lambda peer: peer.host != retry_state.lost_host)
        why: list[str] = []
        errors: list[OstlerError] = []
        for peer in members:
            if not peer.accepts(request.topic):
                why.append(_unavailable_reason(peer, request.topic))
                continue
            try:
                return await (send or _send_to_peer)(peer, request, retry_state)
            except _NOT_STARTED_ERRORS as error:
                why.append(f"{peer.host}: {error.message}")
                errors.append(error)
        last = errors[-1] if errors else None
        # Of several versions one may have the method. Where none has it, to try again would help nobody.
        if last is not None and len(errors) == len(members) and (len(members) == 1 or _lack_method(errors)):
            raise last
        raise _no_host_error(request, why, Busy if isinstance(last, Busy) else DaemonNotRunning)

    def _get_connected_peer(self, request: CallRequest) -> PeerDaemon:
        peer = self._get_peer(request)
        if not peer.up:
            peer.retry_now()
            raise peer.unreachable_error()
        return peer

    def _get_peer(self, request: CallRequest) -> PeerDaemon:
        peers = self.peers.peers if self.peers is not None else {}
        peer = peers.get(request.host or "")
        if peer is None:
            raise ServiceNotFound(
                f"host {request.host!r} not found for {request.topic}.{request.method}",
                hint=f"available: {', '.join(sorted({self.host, *peers}))}; add other hosts in [network.peers]",
                topic=request.topic, host=request.host,
            )  # fmt: skip
        return peer

    def services(self) -> list[ServiceStatus]:
        """Return the services of other hosts that their daemons have told of, as seen from here. Any thread."""
        return self.peers.services() if self.peers is not None else []

    def reports(self) -> list[CapabilityReport]:
        """Return what the services of other hosts last said they can do. Any thread."""
        return self.peers.reports() if self.peers is not None else []

    def is_peer(self, host: str) -> bool:
        """Return whether requests can be brought to another host, now or when it is back. Any thread."""
        return self.peers is not None and host in self.peers.peers

    def missing_reason(self, topic: str, host: str) -> str:
        """Return why a service of a peer is not among `services`, though there is a record of it. Any thread."""
        peer = self.peers.peers.get(host) if self.peers is not None else None
        if peer is None:
            return ""
        return f"{host} no longer has a service {topic}" if peer.up else peer.unreachable_error().message

    def _get_peers(self) -> PeerSet:
        assert self.peers is not None  # noqa: S101 - `here` was asked before
        return self.peers


async def _wait_reachable(peer: PeerDaemon, request: CallRequest) -> float:
    """Wait for a peer that is away; return the seconds that it took."""
    return 0.0 if peer.up else await peer.wait_reachable(effective_timeout(current_context(), request.timeout, None))


def _reduce_timeout(request: CallRequest, seconds: float) -> CallRequest:
    """Return a request of whose own time some has passed; that of the request that is being served passes anyway."""
    if not seconds or request.timeout is None:
        return request
    return request._replace(timeout=max(0.0, request.timeout - seconds))


async def _describe_method(peer: PeerDaemon, request: CallRequest) -> MethodDescription:
    """Return what a method of a peer is; one that goes away meanwhile has begun nothing.

    Raises:
        DaemonNotRunning: It went away.
        OstlerError: The service or method does not exist, or the peer could not be asked.
    """
    try:
        return await peer.describe(request.topic, request.method)
    except ConnectionLost as error:
        raise DaemonNotRunning(f"{peer.host} is unreachable: {error.message}", host=peer.host) from None


def _check_role(ctx: Context, host: str, described: MethodDescription) -> Role:
    """Return the role that a method on another host needs, which the caller here has.

    Raises:
        NotPermitted: The caller has it not.
    """
    needs, where = described.role, f"{described.topic}.{described.method}"
    if needs not in ROLE_ORDER or ROLE_ORDER[ctx.role] < ROLE_ORDER[Role(needs)]:
        raise NotPermitted(
            f"{where} on {host} needs the role {needs}, {ctx.peer.name} has {ctx.role} here",
            hint="an administrator of this host grants it in [access]", needs=needs, role=str(ctx.role),
        )  # fmt: skip
    return Role(needs)


async def _send_to_peer(peer: PeerDaemon, request: CallRequest, retry_state: RetryState | None) -> Any:
    request = request._replace(host=peer.host)
    if retry_state is None:
        return await peer.client.send_request(request)
    try:
        return await peer.client.send_attempt(request, retry_state.request_id)
    except ConnectionLost:
        retry_state.lost_host = peer.host
        raise


def _forward_progress(ctx: Context) -> ProgressCallback:
    return lambda progress: ctx.progress(progress.done, progress.total, progress.text)


def _secret_values(arguments: Mapping[str, Any], names: Collection[str]) -> tuple[Value, ...]:
    """Return the secret values among the arguments of a method that is known only by its description."""
    if not names:
        return ()
    # Up to 7 ms: few methods have secret arguments.
    from ostler.messaging.access.secret_arguments import collect_all, searchable_values

    found: list[Any] = []
    for name in arguments.keys() & set(names):
        collect_all(arguments[name], found)
    for text in [value for value in found if isinstance(value, str) and value[:1] in ("{", "[")]:
        with suppress(ValueError):  # a structure as it is typed on a command line
            collect_all(msgspec.json.decode(text), found)
    return searchable_values(found)


def _lack_method(errors: Iterable[OstlerError]) -> bool:
    return all(is_a(error, MethodNotFound) for error in errors)


def _no_host_error(request: CallRequest, reasons: list[str], error_class: type[MessagingError]) -> MessagingError:
    text = f"no host can serve {request.topic}.{request.method} now: {join_words(reasons)}"
    return error_class(text, hint="see `ostler service list`", topic=request.topic, retry_after=1.0)


def _unavailable_reason(peer: PeerDaemon, topic: str) -> str:
    view = peer.status_of(topic)
    return refusal_reason(view) if view is not None else f"{peer.host} no longer has a service {topic}"
