"""Where a request of a service goes: to this daemon, or to one of the others."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ostler.errors import (
    Busy,
    ConnectionLost,
    Draining,
    MessagingError,
    NotPermitted,
    NotRunning,
    OstlerError,
    TargetNotFound,
    joined,
)
from ostler.messaging.envelope import FANOUT, LENIENT
from ostler.messaging.rpc.core import Ask, OnProgress
from ostler.types import CONTROL_TOPIC, ROLE_ORDER, Role

if TYPE_CHECKING:
    from ostler.messaging.async_item_stream import AsyncItemStream
    from ostler.messaging.context import Context
    from ostler.messaging.peers import Fleet, PeerDaemon

_NOT_TAKEN = (NotRunning, Draining, Busy, TargetNotFound)
"""Errors after which the work has surely not begun, so that another member may be asked."""


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

    def here(self, ask: Ask) -> bool:
        """Return whether this daemon itself is to serve a request, or to refuse it. Any thread."""
        if self.fleet is None or ask.host == self.host:
            return True
        if ask.host:
            return False
        if ask.flags & FANOUT:
            return not self.fleet.members(ask.topic)
        return self._is_open(ask.topic) or not self.fleet.members(ask.topic)

    async def ask(self, ask: Ask) -> Any:
        """Have another daemon serve a request, and return its result.

        Raises:
            TargetNotFound: There is no such host.
            NotRunning: It is away, or all are that have such a service.
            OstlerError: What the request came to.
        """
        return await (self._peer(ask).client.ask(ask) if ask.host else self._ask_any(ask))

    def stream(self, ask: Ask, credit: int) -> AsyncItemStream:
        """Return what a method on another host yields; raises as `ask`, before anything is sent."""
        peer = self._peer(ask) if ask.host else self._member(ask)
        return peer.client.stream(
            ask.topic, ask.method, host=peer.host, timeout=ask.timeout, type=ask.kind, credit=credit, **ask.arguments
        )

    async def relay(self, ctx: Context, host: str, topic: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method on another host on behalf of a caller of this daemon.

        The other daemon knows only this one, by its key. So the caller has to have the role here that the method asks
        for there.

        Raises:
            NotPermitted: The caller lacks the role.
            OstlerError: As `ask`.
        """
        if ctx.peer.key or (topic == CONTROL_TOPIC and method == "relay"):
            # Over two hosts the one in the middle would lend its caller the rights of a daemon.
            raise NotPermitted(
                f"{ctx.peer.name} may not have {topic}.{method} relayed to {host}: only a caller here may, once",
                hint="ask the daemon on that host directly",
            )
        ask = Ask(topic, method, arguments, host, None, None, _passed_on(ctx), LENIENT)
        peer = self._peer(ask)
        needs = await peer.role_of(topic, method)
        if needs not in ROLE_ORDER or ROLE_ORDER[ctx.role] < ROLE_ORDER[Role(needs)]:
            raise NotPermitted(
                f"{topic}.{method} on {host} needs the role {needs}, {ctx.peer.name} has {ctx.role} here",
                hint="an administrator of this host gives it in [access]", needs=needs, has=str(ctx.role),
            )  # fmt: skip
        return await peer.client.ask(ask)

    async def fan_out(self, ask: Ask) -> int:
        """Bring a fanout to all members on other hosts that can be reached; return how many accepted it.

        Raises:
            OstlerError: One of them could not take the request as it is, such as arguments that do not fit.
        """
        members = [peer for peer in self._fleet().members(ask.topic) if peer.up]
        found = await asyncio.gather(*(peer.client.ask(ask) for peer in members), return_exceptions=True)
        reached = 0
        for result in found:
            if isinstance(result, int):
                reached += result
            elif isinstance(result, BaseException) and not isinstance(result, (*_NOT_TAKEN, ConnectionLost)):
                raise result
        return reached

    def _in_turn(self, topic: str) -> list[PeerDaemon]:
        members = self._fleet().members(topic)
        first = next(self._turns[topic]) % len(members) if members else 0
        # One that was starting when it was last asked may be up by now, and refuses what it cannot do yet.
        return sorted([*members[first:], *members[:first]], key=lambda peer: peer.starts(topic))

    def _member(self, ask: Ask) -> PeerDaemon:
        members = self._in_turn(ask.topic)
        for peer in members:
            if peer.takes(ask.topic):
                return peer
        raise _nobody(ask, [_why_not(peer, ask.topic) for peer in members], NotRunning)

    async def _ask_any(self, ask: Ask) -> Any:
        members = self._in_turn(ask.topic)
        why: list[str] = []
        last: OstlerError | None = None
        for peer in members:
            if not peer.takes(ask.topic):
                why.append(_why_not(peer, ask.topic))
                continue
            try:
                return await peer.client.ask(ask._replace(host=peer.host))
            except _NOT_TAKEN as error:
                why.append(f"{peer.host}: {error.message}")
                last = error
        if last is not None and len(members) == 1:
            raise last
        raise _nobody(ask, why, Busy if isinstance(last, Busy) else NotRunning)

    def _peer(self, ask: Ask) -> PeerDaemon:
        peers = self.fleet.peers if self.fleet is not None else {}
        peer = peers.get(ask.host or "")
        if peer is None:
            raise TargetNotFound(
                f"there is no host {ask.host!r} for {ask.topic}.{ask.method}",
                hint=f"there is: {', '.join(sorted({self.host, *peers}))}; others are named in [network.peers]",
                topic=ask.topic, host=ask.host,
            )  # fmt: skip
        if not peer.up:
            raise peer.away()
        return peer

    def _fleet(self) -> Fleet:
        assert self.fleet is not None  # noqa: S101 - `here` was asked before
        return self.fleet


def _passed_on(ctx: Context) -> OnProgress:
    return lambda progress: ctx.progress(progress.done, progress.total, progress.text)


def _nobody(ask: Ask, why: list[str], kind: type[MessagingError]) -> MessagingError:
    text = f"nobody takes {ask.topic}.{ask.method} now: {joined(why)}"
    return kind(text, hint="see `ostler service list`", topic=ask.topic, retry_after=1.0)


def _why_not(peer: PeerDaemon, topic: str) -> str:
    if not peer.up:
        return peer.away().message
    row = peer.services[topic]
    return f"{peer.host}: {topic} is {'disabled' if not row.enabled else row.state}"
