"""Where a request of a service goes: to this daemon, or to one of the others."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.availability import refusal_reason
from ostler.errors import (
    Busy,
    ConnectionLost,
    Draining,
    MessagingError,
    NotPermitted,
    NotRunning,
    OstlerError,
    TargetNotFound,
    is_a,
    joined,
)
from ostler.messaging.context import Relayed, current_context
from ostler.messaging.envelope import FANOUT, LENIENT
from ostler.messaging.rpc.core import Ask, OnProgress, allowed
from ostler.redaction import Value
from ostler.types import CONTROL_TOPIC, ROLE_ORDER, MethodDescription, Role, ServiceState

if TYPE_CHECKING:
    from ostler.messaging.async_item_stream import AsyncItemStream
    from ostler.messaging.context import Context
    from ostler.messaging.envelope import Request
    from ostler.messaging.peers import Fleet, PeerDaemon
    from ostler.types import CapabilityReport, ServiceStatus

_RELAYED = 64
"""Items of a stream that are on their way to who relays it: few, for its reader has a credit of its own."""
_NOT_TAKEN = (NotRunning, Draining, Busy, TargetNotFound)
"""Errors after which the work has surely not begun, so that another member may be asked."""


_SERVING = (ServiceState.UP, ServiceState.DEGRADED)
Send = Callable[["PeerDaemon", Ask, "Repeat | None"], Awaitable[Any]]
"""Sends a request to a peer, and returns its result."""
_LOST_LIMIT = 1000
"""Requests of callers here that are remembered because an attempt was lost at some host; the oldest go first."""


class Repeat:
    """What the attempts of one request have in common.

    Args:
        request_id: Its id.
    """

    __slots__ = ("lost_at", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.lost_at = ""
        """The host at which an attempt was lost: it may be at work, and is the only one to know a repeat for one."""


class Router:
    """Chooses the daemon for each request. On the loop's thread, except for `here`.

    Args:
        host: The name of this host.
        is_open: Whether a topic is open in this daemon.
    """

    def __init__(self, host: str, is_open: Callable[[str], bool]) -> None:
        self.host = host
        self.fleet: Fleet | None = None
        self._is_open = is_open
        self._turns: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._lost: dict[str, Repeat] = {}

    def here(self, ask: Ask | Request) -> bool:
        """Return whether this daemon itself is to serve a request, or to refuse it. Any thread."""
        if self.fleet is None or ask.host == self.host:
            return True
        if ask.host:
            return False
        if ask.flags & FANOUT:
            return not self.fleet.members(ask.topic)
        return self._is_open(ask.topic) or not self.fleet.members(ask.topic)

    async def ask(self, ask: Ask, repeat: Repeat | None = None) -> Any:
        """Have another daemon serve a request, and return its result.

        Args:
            ask: The request.
            repeat: What other attempts have been at, or will be; None for one that is made once.

        Raises:
            TargetNotFound: There is no such host.
            NotRunning: It is away, or all are that have such a service.
            OstlerError: What the request came to.
        """
        ask = await self.reach(ask)
        return await (_send(self._peer(ask), ask, repeat) if ask.host else self._ask_any(ask, repeat))

    async def reach(self, ask: Ask) -> Ask:
        """Have who is to serve a request tried at once if it is away, and wait for what comes of that.

        Returns:
            The request, with what is left of its time.

        Raises:
            TargetNotFound: There is no such host.
            NotRunning: It is away. Of a request for no host in particular it is said later, with what ails the others.
        """
        if ask.host:
            return _less(ask, await _reached(self._named(ask), ask))
        members = self._fleet().members(ask.topic)
        if any(peer.takes(ask.topic) for peer in members):
            return ask
        waits = await asyncio.gather(*(_reached(peer, ask) for peer in members), return_exceptions=True)
        return _less(ask, max((wait for wait in waits if isinstance(wait, float)), default=0.0))

    def stream(self, ask: Ask, credit: int) -> AsyncItemStream:
        """Return what a method on another host yields; raises as `ask`, before anything is sent, and never waits."""
        peer = self._peer(ask) if ask.host else self._member(ask)
        return peer.client.ask_stream(ask._replace(host=peer.host), credit)

    async def relay(
        self, ctx: Context, host: str, ask: Ask, *, lenient: bool = True, repeat: Repeat | None = None
    ) -> Any:
        """Call or cast a method on another host on behalf of a caller of this daemon.

        The other daemon knows only this one, by its key. So the caller has to have the role here that the method asks
        for there.

        Args:
            ctx: The caller's request. Its secrets are from now on those that the method there has among its arguments.
            host: The other host; empty for a member that takes the request, as `ask` chooses it.
            ask: What is asked there.
            lenient: Whether texts may stand for numbers, booleans and structures.
            repeat: What other attempts have been at; see `repeat_of`.

        Raises:
            NotPermitted: The caller lacks the role.
            OstlerError: As `ask`.
        """
        ask = ask._replace(on_progress=_passed_on(ctx), flags=ask.flags | (LENIENT if lenient else 0))

        async def send(peer: PeerDaemon, ask: Ask, repeat: Repeat | None) -> Any:
            return await _send(await self._lent(ctx, peer.host, ask), ask, repeat)

        try:
            if host:
                return await _send(await self._lent(ctx, host, ask), ask, repeat)
            return await self._ask_any(await self.reach(ask), repeat, send)
        finally:
            if repeat is not None:
                self._remember(repeat)

    async def relay_stream(self, ctx: Context, host: str, ask: Ask, *, lenient: bool = True) -> AsyncItemStream:
        """Return what a method on another host yields, on behalf of a caller of this daemon; see `relay`."""
        peer = await self._lent(ctx, host or self._member(await self.reach(ask)).host, ask)
        return peer.client.ask_stream(ask._replace(host=peer.host, flags=LENIENT if lenient else 0), _RELAYED)

    def repeat_of(self, request_id: str) -> Repeat:
        """Return what the attempts of a caller here have in common, so that a repeat goes where one was lost."""
        return self._lost.pop(request_id, None) or Repeat(request_id)

    def _remember(self, repeat: Repeat) -> None:
        if repeat.lost_at:
            self._lost[repeat.request_id] = repeat
            if len(self._lost) > _LOST_LIMIT:
                del self._lost[next(iter(self._lost))]

    async def _lent(self, ctx: Context, host: str, ask: Ask) -> PeerDaemon:
        """Return the peer, when the caller of this daemon may have there what it asks for."""
        topic, method = ask.topic, ask.method
        if ctx.peer.key or (topic == CONTROL_TOPIC and method in ("relay", "relay_stream")):
            # Over two hosts the one in the middle would lend its caller the rights of a daemon.
            raise NotPermitted(
                f"{ctx.peer.name} may not have {topic}.{method} relayed to {host}: only a caller here may, once",
                hint="ask the daemon on that host directly",
            )
        peer = self._named(ask._replace(host=host))
        await _reached(peer, ask)
        described = await _described(peer, ask)
        ctx.secrets = _secrets_among(ask.arguments, described.secret)
        ctx.relayed = Relayed(host, f"{topic}.{method}", _needed(ctx, host, described), described.changes)
        return peer

    def hosts(self, topic: str) -> dict[str, float]:
        """Return the hosts that serve a topic now and can be reached, each with since when: this one since ever."""
        found = {self.host: 0.0} if self._is_open(topic) else {}
        if self.fleet is not None:
            members = [peer for peer in self.fleet.members(topic) if peer.up]
            found |= {peer.host: peer.since for peer in members if peer.services[topic].state in _SERVING}
        return found

    async def fan_out(self, ask: Ask, hosts: Collection[str] | None = None) -> int:
        """Bring a fanout to all members on other hosts that can be reached; return how many accepted it.

        Args:
            ask: The fanout.
            hosts: The only hosts that it may reach; None for any.

        Raises:
            OstlerError: One of them could not take the request as it is, such as arguments that do not fit.
        """
        members = [peer for peer in self._fleet().members(ask.topic) if peer.up]
        members = [peer for peer in members if hosts is None or peer.host in hosts]
        # Each is meant by name, so that none of them brings it to others in its turn.
        asked = (peer.client.ask(ask._replace(host=peer.host)) for peer in members)
        found = await asyncio.gather(*asked, return_exceptions=True)
        reached = 0
        for result in found:
            if isinstance(result, int):
                reached += result
            elif isinstance(result, BaseException) and not is_a(result, (*_NOT_TAKEN, ConnectionLost)):
                raise result
        return reached

    async def check_fan_out(self, ctx: Context, ask: Ask) -> list[str]:
        """Refuse a fanout of a caller of this daemon that one of the members on other hosts would not let it make.

        Returns:
            The hosts that it may reach: those that were asked for the role.

        Raises:
            NotPermitted: The caller lacks the role that the method asks for on one of them; nothing has been sent.
            OstlerError: One of them has no such method.
        """
        members = [peer for peer in self._fleet().members(ask.topic) if peer.up]
        found = await asyncio.gather(*(_described(peer, ask) for peer in members), return_exceptions=True)
        secret: set[str] = set()
        roles: dict[str, Role] = {}
        changes = False
        for peer, described in zip(members, found, strict=True):
            if isinstance(described, BaseException):
                if isinstance(described, NotRunning):  # it cannot be reached, so it is not asked either
                    continue
                raise described
            secret.update(described.secret)
            changes = changes or described.changes
            roles[peer.host] = _needed(ctx, peer.host, described)
        ctx.secrets = _secrets_among(ask.arguments, secret)
        highest = max(roles.values(), key=lambda role: ROLE_ORDER[role], default=Role.VIEWER)
        ctx.relayed = Relayed("other hosts", f"{ask.topic}.{ask.method}", highest, changes)
        return list(roles)

    async def describe(self, topic: str, *, schema: bool = False) -> list[MethodDescription]:
        """Return the methods of a topic that is on other hosts alone, as one of its members says them.

        Raises:
            NotRunning: No member can be reached.
            OstlerError: It could not be asked.
        """
        ask = await self.reach(Ask(topic, "describe", {}))
        arguments = {"topic": topic, "schema": schema}
        request = Ask(CONTROL_TOPIC, "describe", arguments, self._member(ask).host, kind=list[MethodDescription])
        found: list[MethodDescription] = await self._peer(request).client.ask(request)
        return found

    def _in_turn(self, topic: str) -> list[PeerDaemon]:
        members = self._fleet().members(topic)
        first = next(self._turns[topic]) % len(members) if members else 0
        # One that is starting refuses what it cannot do yet, and one that is not well may do it all the same.
        return sorted([*members[first:], *members[:first]], key=lambda peer: not peer.is_well(topic))

    def _member(self, ask: Ask) -> PeerDaemon:
        members = self._in_turn(ask.topic)
        for peer in members:
            if peer.takes(ask.topic):
                return peer
        raise _nobody(ask, [_why_not(peer, ask.topic) for peer in members], NotRunning)

    async def _ask_any(self, ask: Ask, repeat: Repeat | None, send: Send | None = None) -> Any:
        members = self._in_turn(ask.topic)
        if repeat is not None and repeat.lost_at:
            members.sort(key=lambda peer: peer.host != repeat.lost_at)
        why: list[str] = []
        last: OstlerError | None = None
        for peer in members:
            if not peer.takes(ask.topic):
                why.append(_why_not(peer, ask.topic))
                continue
            try:
                return await (send or _send)(peer, ask, repeat)
            except _NOT_TAKEN as error:
                why.append(f"{peer.host}: {error.message}")
                last = error
        if last is not None and len(members) == 1:
            raise last
        raise _nobody(ask, why, Busy if isinstance(last, Busy) else NotRunning)

    def _peer(self, ask: Ask) -> PeerDaemon:
        peer = self._named(ask)
        if not peer.up:
            peer.hurry()
            raise peer.away()
        return peer

    def _named(self, ask: Ask) -> PeerDaemon:
        peers = self.fleet.peers if self.fleet is not None else {}
        peer = peers.get(ask.host or "")
        if peer is None:
            raise TargetNotFound(
                f"there is no host {ask.host!r} for {ask.topic}.{ask.method}",
                hint=f"there is: {', '.join(sorted({self.host, *peers}))}; others are named in [network.peers]",
                topic=ask.topic, host=ask.host,
            )  # fmt: skip
        return peer

    def services(self) -> list[ServiceStatus]:
        """Return the services of other hosts that their daemons have told of, as seen from here. Any thread."""
        return self.fleet.services() if self.fleet is not None else []

    def reports(self) -> list[CapabilityReport]:
        """Return what the services of other hosts last said they can do. Any thread."""
        return self.fleet.reports() if self.fleet is not None else []

    def is_peer(self, host: str) -> bool:
        """Return whether requests can be brought to another host, now or when it is back. Any thread."""
        return self.fleet is not None and host in self.fleet.peers

    def missing(self, topic: str, host: str) -> str:
        """Return why a service of a peer is not among `services`, though there is a record of it. Any thread."""
        peer = self.fleet.peers.get(host) if self.fleet is not None else None
        if peer is None:
            return ""
        return f"{host} has no service {topic} any more" if peer.up else peer.away().message

    def _fleet(self) -> Fleet:
        assert self.fleet is not None  # noqa: S101 - `here` was asked before
        return self.fleet


async def _reached(peer: PeerDaemon, ask: Ask) -> float:
    """Wait for a peer that is away; return the seconds that it took."""
    return 0.0 if peer.up else await peer.reach(allowed(current_context(), ask.timeout, None))


def _less(ask: Ask, seconds: float) -> Ask:
    """Return a request of whose own time some has passed; that of the request that is being served passes anyway."""
    if not seconds or ask.timeout is None:
        return ask
    return ask._replace(timeout=max(0.0, ask.timeout - seconds))


async def _described(peer: PeerDaemon, ask: Ask) -> MethodDescription:
    """Return what a method of a peer is; one that goes away meanwhile has begun nothing.

    Raises:
        NotRunning: It went away.
        OstlerError: There is no such service or method, or it could not be asked.
    """
    try:
        return await peer.describe(ask.topic, ask.method)
    except ConnectionLost as error:
        raise NotRunning(f"{peer.host} cannot be reached: {error.message}", host=peer.host) from None


def _needed(ctx: Context, host: str, described: MethodDescription) -> Role:
    """Return the role that a method on another host needs, which the caller here has.

    Raises:
        NotPermitted: The caller has it not.
    """
    needs, where = described.role, f"{described.topic}.{described.method}"
    if needs not in ROLE_ORDER or ROLE_ORDER[ctx.role] < ROLE_ORDER[Role(needs)]:
        raise NotPermitted(
            f"{where} on {host} needs the role {needs}, {ctx.peer.name} has {ctx.role} here",
            hint="an administrator of this host gives it in [access]", needs=needs, has=str(ctx.role),
        )  # fmt: skip
    return Role(needs)


async def _send(peer: PeerDaemon, ask: Ask, repeat: Repeat | None) -> Any:
    ask = ask._replace(host=peer.host)
    if repeat is None:
        return await peer.client.ask(ask)
    try:
        return await peer.client.attempt(ask, repeat.request_id)
    except ConnectionLost:
        repeat.lost_at = peer.host
        raise


def _passed_on(ctx: Context) -> OnProgress:
    return lambda progress: ctx.progress(progress.done, progress.total, progress.text)


def _secrets_among(arguments: Mapping[str, Any], names: Collection[str]) -> tuple[Value, ...]:
    """Return what may stand in no text, of arguments for a method that is known only by its description."""
    if not names:
        return ()
    from ostler.messaging.secret import everything, values_of

    found: list[Any] = []
    for name in arguments.keys() & set(names):
        everything(arguments[name], found)
    for text in [value for value in found if isinstance(value, str) and value[:1] in ("{", "[")]:
        with suppress(ValueError):  # a structure as it is typed on a command line
            everything(msgspec.json.decode(text), found)
    return values_of(found)


def _nobody(ask: Ask, why: list[str], kind: type[MessagingError]) -> MessagingError:
    text = f"nobody takes {ask.topic}.{ask.method} now: {joined(why)}"
    return kind(text, hint="see `ostler service list`", topic=ask.topic, retry_after=1.0)


def _why_not(peer: PeerDaemon, topic: str) -> str:
    view = peer.view(topic)
    return refusal_reason(view) if view is not None else f"{peer.host} has no service {topic} any more"
