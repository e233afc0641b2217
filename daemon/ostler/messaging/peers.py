"""Other daemons: a link to each, whether it is there, and which services it has."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import msgspec

from ostler.aio import TaskOwner
from ostler.bounds import WHY_LIMIT, cut
from ostler.clock import Clock
from ostler.errors import Conflict, MessagingError, NotPermitted, NotRunning, OstlerError, TargetNotFound, describe
from ostler.messaging.async_client import AsyncClient
from ostler.messaging.target import did_you_mean
from ostler.messaging.transport import AsyncLink, OnLost, OnMessage, Transport
from ostler.types import CONTROL_TOPIC, MethodDescription, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 15.0
"""Seconds between two tries to reach a peer that is away: twice as long each time, up to this, and never quite as long
as others wait, so that a fleet does not come back all at once."""
_PATIENCE = 5.0
"""Seconds that a peer has to say which services it has; one that takes longer counts as away."""
_AT_WORK = (ServiceState.UP, ServiceState.DEGRADED, ServiceState.STARTING)
_ROWS_LIMIT = 1000
"""Services of a peer, and drivers of a service, that are taken note of."""
_SOON = 0.5
"""Seconds until a peer is asked again that has something starting."""


class PeerAddress(NamedTuple):
    """Where another daemon listens for calls, and its public keys, the likeliest first."""

    rpc: str
    keys: tuple[str, ...]


class _Glance(msgspec.Struct):
    """What is looked at of a peer's `status`; the rest of it may be of another version."""

    host: str
    services: list[ServiceStatus] = []


MakeTransport = Callable[[PeerAddress, str], Transport]
"""Makes the transport to a peer that holds a key; whoever makes it has nothing to close."""
OnRows = Callable[[str, Sequence[ServiceStatus]], None]
"""Told the services of a peer each time it was asked."""


class PeerDaemon:
    """One other daemon. On the loop's thread only.

    Args:
        host: Its name.
        address: Where it is.
        make_transport: Makes what leads there.
        clock: The source of time.
        timeout: Deadline of a call that names none.
    """

    def __init__(
        self, host: str, address: PeerAddress, make_transport: MakeTransport, clock: Clock, timeout: float | None
    ) -> None:
        self.host = host
        self.address = address
        self.up = False
        self.why = "it has not been reached yet"
        self.since = clock.wall()
        self.services: dict[str, ServiceStatus] = {}
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._tries = 0
        self._changed = asyncio.Event()
        self.client = self._connect()

    def has(self, topic: str) -> bool:
        """Return whether it runs a service on a topic, whatever its state."""
        return topic in self.services

    def takes(self, topic: str) -> bool:
        """Return whether a service there takes work, as far as is known, or will in a moment."""
        row = self.services.get(topic)
        return self.up and row is not None and row.enabled and row.state in _AT_WORK

    def starts(self, topic: str) -> bool:
        """Return whether a service there was starting when we last heard of it."""
        row = self.services.get(topic)
        return row is not None and row.state is ServiceState.STARTING

    def away(self) -> NotRunning:
        """Return the error of a call to a daemon that is known to be away."""
        return NotRunning(
            f"{self.host} cannot be reached for {self._clock.wall() - self.since:.0f} s: {self.why}",
            hint="see `ostler status` there; it is tried again by itself",
            host=self.host,
            since=self.since,
        )

    async def describe(self, topic: str, method: str) -> MethodDescription:
        """Return what a method there is: which role it asks for, and what it keeps secret.

        Raises:
            TargetNotFound: There is no such service or method.
            OstlerError: It could not be asked.
        """
        found: list[MethodDescription] = await self.client.call(
            CONTROL_TOPIC, "describe", topic=topic, type=list[MethodDescription], timeout=_PATIENCE
        )
        for description in found:
            if description.method == method:
                return description
        raise TargetNotFound(
            f"{topic} on {self.host} has no method {method!r}",
            hint=did_you_mean(method, [each.method for each in found]),
        )

    async def look(self) -> list[ServiceStatus]:
        """Ask it which services it has, and take note.

        Raises:
            OstlerError: It cannot be reached, or is another daemon.
        """
        try:
            glance = await self.client.call(CONTROL_TOPIC, "status", type=_Glance, timeout=_PATIENCE)
            if glance.host != self.host:
                raise Conflict(
                    f"{self.address.rpc} is {self.host} in [network.peers], and the daemon there is {glance.host}",
                    hint="give the peer the name that is `host` in its [daemon]",
                )
        except OstlerError as error:
            await self._missed(error)
            raise
        rows = [_bounded(row) for row in glance.services[:_ROWS_LIMIT] if row.host == self.host]
        self.services = {row.topic: row for row in rows}
        self._tries = 0
        if not self.up:
            _log.info("%s is there, with %s", self.host, ", ".join(self.services) or "no services")
            self._set(up=True, why="")
        return rows

    async def rest(self, interval: float) -> None:
        """Wait until it is to be asked again: sooner when its link is lost, later when it cannot be reached."""
        wait = interval
        if self.up and any(map(self.starts, self.services)):
            wait = min(interval, _SOON)
        elif not self.up:
            longest = min(_FIRST_WAIT * 2 ** min(self._tries, 10), _LONGEST_WAIT)
            wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        self._changed.clear()
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Cancel what is under way there and close the link."""
        await self.client.close()

    def _connect(self) -> AsyncClient:
        keys = self.address.keys
        transport = _Told(self._make_transport(self.address, keys[self._tries % len(keys)]), self._lost)
        return AsyncClient(transport=cast("Transport", transport), timeout=self._timeout, clock=self._clock)

    async def _missed(self, error: OstlerError) -> None:
        self._tries += 1
        self._set(up=False, why=describe(error))
        if len(self.address.keys) > 1 and isinstance(error, NotPermitted):
            # While a peer exchanges its key, nobody knows which one it has by now.
            old, self.client = self.client, self._connect()
            await old.close()

    def _lost(self, error: MessagingError) -> None:
        if self.up:
            self._set(up=False, why=error.message)
            self._changed.set()

    def _set(self, *, up: bool, why: str) -> None:
        if self.up and not up:
            _log.warning("%s cannot be reached: %s", self.host, why)
        if self.up != up:
            self.since = self._clock.wall()
        self.up, self.why = up, why


def _bounded(row: ServiceStatus) -> ServiceStatus:
    """Return what another daemon says of a service in lengths that can be kept, and shown here."""
    drivers = [msgspec.structs.replace(each, why=cut(each.why, WHY_LIMIT)) for each in row.drivers[:_ROWS_LIMIT]]
    texts = {name: cut(getattr(row, name), WHY_LIMIT) for name in ("why", "disabled_reason", "disabled_by", "manager")}
    return msgspec.structs.replace(row, drivers=drivers, **texts)


class _Told:
    """A transport that tells of each link that is lost; opens links for calls only."""

    def __init__(self, transport: Transport, told: Callable[[MessagingError], None]) -> None:
        self._transport = transport
        self._told = told

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        def lost(error: MessagingError) -> None:
            self._told(error)
            on_lost(error)

        return self._transport.connect_async(on_message, lost)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class Fleet:
    """All other daemons. On the loop's thread only.

    Args:
        make_transport: Makes what leads to a peer.
        clock: The source of time.
        timeout: Deadline of a call that names none.
        on_rows: Told which services a peer has, each time it was asked.
    """

    def __init__(
        self, make_transport: MakeTransport, clock: Clock, timeout: float | None, on_rows: OnRows | None = None
    ) -> None:
        self.peers: dict[str, PeerDaemon] = {}
        self.on_rows = on_rows
        self.interval = 5.0
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._tasks = TaskOwner("peers")
        self._watches: dict[str, asyncio.Task[None]] = {}

    def set(self, addresses: Mapping[str, PeerAddress], interval: float) -> None:
        """Take over where the peers are; links to those that have not changed stay."""
        self.interval = interval
        for host in [host for host, peer in self.peers.items() if addresses.get(host) != peer.address]:
            peer = self.peers.pop(host)
            self._tasks.end(self._watches.pop(host))
            self._tasks.spawn(peer.close(), name=f"close the link to {host}")
        for host, address in addresses.items():
            if host not in self.peers:
                peer = PeerDaemon(host, address, self._make_transport, self._clock, self._timeout)
                self.peers[host] = peer
                self._watches[host] = self._tasks.keep(partial(self._watch, peer), name=f"watch {host}")

    def renew(self) -> None:
        """Make all links anew with the next use: our own key has changed."""
        addresses = {host: peer.address for host, peer in self.peers.items()}
        self.set({}, self.interval)
        self.set(addresses, self.interval)

    def members(self, topic: str) -> list[PeerDaemon]:
        """Return the peers that run a service on a topic, in the order of their names."""
        return [peer for _, peer in sorted(self.peers.items()) if peer.has(topic)]

    def stats(self) -> dict[str, dict[str, object]]:
        """Return what is known of each peer."""
        return {
            host: {"up": peer.up, "since": peer.since, "why": peer.why, "services": sorted(peer.services)}
            for host, peer in sorted(self.peers.items())
        }

    def troubles(self) -> list[str]:
        """Return the watches of peers that failed not long ago, a line each."""
        return self._tasks.troubles()

    async def close(self) -> None:
        """End all links."""
        await self._tasks.cancel()
        await asyncio.gather(*(peer.close() for peer in self.peers.values()), return_exceptions=True)
        self.peers.clear()

    async def _watch(self, peer: PeerDaemon) -> None:
        while True:
            try:
                rows = await peer.look()
                if self.on_rows is not None:
                    self.on_rows(peer.host, rows)
            except OstlerError as error:
                _log.debug("%s was asked for its services: %s", peer.host, error)
            await peer.rest(self.interval)
