"""Other daemons: a link to each, whether it is there, and which services it has."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

import msgspec

from ostler.aio import TaskOwner
from ostler.availability import refusal_reason, unavailable_reason
from ostler.bounds import NAME_LIMIT, WHY_LIMIT, cut
from ostler.clock import Clock
from ostler.errors import Conflict, MessagingError, NotPermitted, NotRunning, OstlerError, TargetNotFound, describe
from ostler.messaging.async_client import AsyncClient
from ostler.messaging.identities import HINT, mismatch
from ostler.messaging.transport import AsyncLink, OnLost, OnMessage, Transport
from ostler.spelling import suggest
from ostler.types import (
    CONTROL_TOPIC,
    CapabilityReport,
    HostIdentity,
    HostReport,
    MethodDescription,
    ServiceState,
    ServiceStatus,
)

_log = logging.getLogger(__name__)
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 15.0
"""Seconds between two tries to reach a peer that is away: twice as long each time, up to this, and never quite as long
as others wait, so that a fleet does not come back all at once."""
_PATIENCE = 5.0
"""Seconds that a peer has to say which services it has; one that takes longer counts as away."""
_ROWS_LIMIT = 1000
"""Services of a peer, and drivers of a service, that are taken note of."""
_REPORT_LIMIT = 2 * 1024 * 1024
"""Bytes of one report of capabilities of a peer that are taken note of: schedulers show them to whoever asks."""
_NO_TIMEOUT = 86400.0
"""Seconds that a stream of reports may last; then it is opened again."""
_LEAST_INTERVAL = 0.1
"""Seconds between two questions to a peer that is there, whatever intervals its services have."""
_SOON = 0.5
"""Seconds until a peer is asked again that has something starting."""
_LEAST_WAIT = 0.25
"""Seconds between the beginnings of two tries to reach a peer that is away, however many callers ask for one."""
_ON_ITS_WAY = 0.25
"""Seconds that an answer has beyond what the peer may wait before it."""
_REACH = 0.75
"""Seconds that a caller waits at most for the outcome of a try."""


class PeerAddress(NamedTuple):
    """Where another daemon listens for calls, and its public keys, the likeliest first."""

    rpc: str
    keys: tuple[str, ...]


MakeTransport = Callable[[PeerAddress, str], Transport]
"""Makes the transport to a peer that holds a key; whoever makes it has nothing to close."""
OnNews = Callable[["PeerDaemon"], None]
"""Told of a peer of which something has changed."""
OnPeer = Callable[[str, str, str, float], None]
"""Told of a peer that it is `back`, `lost` or `refused`, why, and since when (wall time); it may be no news."""


class PeerDaemon:
    """One other daemon. On the loop's thread only.

    Args:
        host: Its name.
        address: Where it is.
        make_transport: Makes what leads there.
        clock: The source of time.
        timeout: Deadline of a call that names none.
        on_change: Told what becomes of it.
    """

    def __init__(
        self,
        host: str,
        address: PeerAddress,
        make_transport: MakeTransport,
        clock: Clock,
        timeout: float | None,
        on_change: OnPeer | None = None,
    ) -> None:
        self.host = host
        self.address = address
        self.up = False
        self.why = "it has not been reached yet"
        self.since = clock.wall()
        self.services: dict[str, ServiceStatus] = {}
        """What runs there as it was told last, by topic; `view` also knows of the link."""
        self._reports: list[CapabilityReport] = []
        self.on_news: OnNews = _nothing
        """Told after what is known of it has changed: its services, its capabilities, the link."""
        self._known = HostReport(host="")
        self._heard_at = self._reported_at = clock.monotonic()
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._on_change = on_change
        self.mine: HostIdentity | None = None
        """Who this daemon is; None where that is told nobody."""
        self.identity: HostIdentity | None = None
        """Who was there when the link was made."""
        self._tries = 0
        self._begun = self._ended = 0
        """Looks that have begun, and that have come to their end: the same number between two looks."""
        self._begun_at = -math.inf
        self._changed = asyncio.Event()
        self._ended_next = asyncio.Event()
        """Set at the end of the look that is under way, or else of the next one; then there is another one."""
        self.client = self._connect()

    def has(self, topic: str) -> bool:
        """Return whether it runs a service on a topic, whatever its state."""
        return topic in self.services

    def view(self, topic: str) -> ServiceStatus | None:
        """Return a service there as it is seen from here, None for one that it has not."""
        row = self.services.get(topic)
        if row is None or self.up:
            return row
        return msgspec.structs.replace(
            row, up=False, link=self.away().message, age=self._clock.monotonic() - self._heard_at
        )

    def reports(self) -> list[CapabilityReport]:
        """Return what its services offer, as it was told last: older by as long as that is ago."""
        held = self._clock.monotonic() - self._reported_at
        return [_older(report, held) for report in self._reports]

    def takes(self, topic: str) -> bool:
        """Return whether a service there takes work, as far as is known, or will in a moment."""
        row = self.view(topic)
        return row is not None and (self.starts(topic) or not refusal_reason(row))

    def starts(self, topic: str) -> bool:
        """Return whether a service there is starting, and its host can be reached."""
        row = self.services.get(topic)
        return self.up and row is not None and row.state is ServiceState.STARTING

    def is_well(self, topic: str) -> bool:
        """Return whether a service there may be chosen for new work."""
        row = self.view(topic)
        return row is not None and not unavailable_reason(row)

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
        found: list[MethodDescription] = await self.client.on(type=list[MethodDescription], timeout=_PATIENCE).call(
            CONTROL_TOPIC, "describe", topic=topic
        )
        for description in found:
            if description.method == method:
                return description
        raise TargetNotFound(
            f"{topic} on {self.host} has no method {method!r}",
            hint=suggest(method, [each.method for each in found]),
        )

    def hurry(self) -> None:
        """Have it asked again at once, if it is away: somebody wants it, or has heard from it."""
        if not self.up:
            self._changed.set()

    async def reach(self, patience: float | None) -> float:
        """Have a peer that is away tried at once, and wait for the outcome of that one try.

        However many callers wait there is one try at a time, and no more than four in a second. One that was under way
        when the caller came may have met a daemon that was not there yet: it counts only if it has reached the peer.

        Args:
            patience: Seconds that the caller has; it waits for less than one at most.

        Returns:
            The seconds that it took.

        Raises:
            NotRunning: It is away.
        """
        loop = asyncio.get_running_loop()
        began, wanted = loop.time(), self._begun + 1
        self.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REACH if patience is None else min(patience, _REACH)):
                while not self.up and self._ended < wanted:
                    await self._ended_next.wait()
        if not self.up:
            raise self.away()
        return loop.time() - began

    async def tried(self) -> None:
        """Wait until it has been asked once, whatever came of that."""
        while not self._ended:
            await self._ended_next.wait()

    async def reached(self) -> None:
        """Wait until it is there."""
        while not self.up:
            await self._ended_next.wait()

    async def introduce(self) -> HostIdentity | None:
        """Say who this daemon is, and ask who is there; None when it does not know of that.

        Raises:
            Conflict: It is not the host that it should be, or another daemon is.
            OstlerError: It could not be asked.
        """
        if self.mine is None:
            return None
        said = msgspec.structs.asdict(self.mine)
        try:
            found: HostIdentity = await self.client.on(type=HostIdentity, timeout=_PATIENCE).call(
                CONTROL_TOPIC, "hello", **said
            )
        except TargetNotFound:  # of an earlier version
            return None
        if why := mismatch(self.mine, found, self.host):
            raise Conflict(f"{self.address.rpc} is refused: {why}", hint=HINT, host=self.host)
        return found

    async def look(self) -> list[ServiceStatus]:
        """Ask it which services it has, and take note.

        Raises:
            OstlerError: It cannot be reached, or is another daemon.
        """
        self._changed.clear()
        self._begun += 1
        self._begun_at = asyncio.get_running_loop().time()
        try:
            return await self._look()
        finally:
            self._ended = self._begun
            ended, self._ended_next = self._ended_next, asyncio.Event()
            ended.set()

    async def _look(self) -> list[ServiceStatus]:
        try:
            if not self.up:
                self.identity = await self.introduce()
            report = await self.client.on(type=HostReport, timeout=_PATIENCE).call(CONTROL_TOPIC, "host_report")
            if report.host != self.host:
                raise Conflict(
                    f"{self.address.rpc} is {self.host} in [network.peers], and the daemon there is {report.host}",
                    hint="give the peer the name that is `host` in its [daemon]",
                )
        except OstlerError as error:
            await self._missed(error)
            raise
        self._tries = 0
        self._changed.clear()
        fresh = self._take(report)
        if not self.up:
            _log.info("%s is there, with %s", self.host, ", ".join(self.services) or "no services")
            self._set(up=True, why="")
        elif fresh:
            self.on_news(self)
        return list(self.services.values())

    async def refresh(self) -> None:
        """Ask it for its services now, beside what is told and asked anyway: something was just done there.

        Raises:
            OstlerError: It could not be asked.
        """
        report = await self.client.on(type=HostReport, timeout=_PATIENCE).call(CONTROL_TOPIC, "host_report")
        if report.host == self.host and self.up and self._take(report):
            self.on_news(self)

    async def follow(self) -> None:
        """Take note of what it tells of itself as soon as that changes, until the link is lost.

        Raises:
            OstlerError: It tells no more; what it is asked every few seconds goes on.
        """
        async with self.client.on(type=HostReport, timeout=_NO_TIMEOUT).stream(CONTROL_TOPIC, "watch_host") as reports:
            async for report in reports:
                if report.host == self.host and self.up and self._take(report):
                    self.on_news(self)

    async def catch_up(self, seconds: float) -> None:
        """Have it tell now what it offers, and what has just changed there; wait for so many seconds at most."""
        try:
            report = await self.client.on(type=HostReport, timeout=seconds + _ON_ITS_WAY).call(
                CONTROL_TOPIC, "host_report", flush=seconds
            )
        except OstlerError as error:
            _log.debug("%s was asked for what has just changed: %s", self.host, error)
            return
        if report.host == self.host and self.up and self._take(report):
            self.on_news(self)

    def _take(self, report: HostReport) -> bool:
        """Take note of what it tells; return False for an answer that was overtaken by what was told later."""
        self._heard_at = self._clock.monotonic()
        known = self._known
        if report.instance == known.instance and report.sequence < known.sequence:
            return False
        self._known = report
        rows = [_bounded(row) for row in report.services[:_ROWS_LIMIT] if _is_there(row, self.host)]
        self.services = {row.topic: row for row in rows}
        reports = [each for each in report.capabilities[:_ROWS_LIMIT] if each.host == self.host]
        self._reports = [each for each in reports if len(msgspec.msgpack.encode(each)) <= _REPORT_LIMIT]
        self._reported_at = self._heard_at
        return True

    async def rest(self, interval: float) -> None:
        """Wait until it is to be asked again.

        Sooner when its link is lost, later when it cannot be reached, and then at once when somebody wants it.
        """
        wait = interval
        if self.up and any(map(self.starts, self.services)):
            wait = min(interval, _SOON)
        elif self.up:
            # A service is to be heard of as often as it says itself, whatever we think is often.
            own = [row.report_interval for row in self.services.values() if row.report_interval]
            wait = max(_LEAST_INTERVAL, min([interval, *own]))
        elif not self.up:
            longest = min(_FIRST_WAIT * 2 ** min(self._tries, 10), _LONGEST_WAIT)
            wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._changed.wait()
        if not self.up:
            await asyncio.sleep(self._begun_at + _LEAST_WAIT - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Cancel what is under way there and close the link."""
        await self.client.close()

    def _connect(self) -> AsyncClient:
        keys = self.address.keys
        transport = _Told(self._make_transport(self.address, keys[self._tries % len(keys)]), self._lost)
        return AsyncClient(transport=cast("Transport", transport), timeout=self._timeout, clock=self._clock)

    async def _missed(self, error: OstlerError) -> None:
        self._tries += 1
        self._set(up=False, why=describe(error), refused=isinstance(error, (NotPermitted, Conflict)))
        if len(self.address.keys) > 1 and isinstance(error, NotPermitted):
            # While a peer exchanges its key, nobody knows which one it has by now.
            old, self.client = self.client, self._connect()
            await old.close()

    def _lost(self, error: MessagingError) -> None:
        if self.up:
            self._set(up=False, why=error.message)
            self._changed.set()

    def _set(self, *, up: bool, why: str, refused: bool = False) -> None:
        if (self.up and not up) or (refused and self.why != why):
            _log.warning("%s cannot be reached: %s", self.host, why)
        changed, self.up, self.why = self.up != up, up, why
        if changed:
            self.since = self._clock.wall()
            self.on_news(self)
        if self._on_change is not None:
            self._on_change(self.host, "refused" if refused else "back" if up else "lost", why, self.since)


def _is_there(row: ServiceStatus, host: str) -> bool:
    return row.host == host and row.state is not ServiceState.GONE


def _bounded(row: ServiceStatus) -> ServiceStatus:
    """Return what another daemon says of a service in lengths that can be kept, and shown here."""
    drivers = [msgspec.structs.replace(each, why=cut(each.why, WHY_LIMIT)) for each in row.drivers[:_ROWS_LIMIT]]
    texts = {name: cut(getattr(row, name), WHY_LIMIT) for name in ("why", "disabled_reason", "disabled_by", "manager")}
    evidence = {cut(about, NAME_LIMIT): cut(why, WHY_LIMIT) for about, why in islice(row.evidence.items(), _ROWS_LIMIT)}
    # Of its age and of the link it can know nothing.
    return msgspec.structs.replace(
        row, drivers=drivers, evidence=evidence, here=False, age=0.0, link="", addressable=True, **texts
    )


def _older(report: CapabilityReport, seconds: float) -> CapabilityReport:
    return msgspec.structs.replace(report, ages={name: age + seconds for name, age in report.ages.items()})


def _nothing(_peer: PeerDaemon) -> None:
    """Stand for who is told of news, where nobody is."""


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
        on_news: Told after what is known of a peer has changed: its services, its capabilities, the link.
    """

    def __init__(
        self, make_transport: MakeTransport, clock: Clock, timeout: float | None, on_news: OnNews | None = None
    ) -> None:
        self.peers: dict[str, PeerDaemon] = {}
        self.on_news: OnNews = on_news or _nothing
        self.mine: HostIdentity | None = None
        """Who this daemon is; to be set before there are any peers, like what follows."""
        self.on_change: OnPeer | None = None
        """Told what becomes of each peer; to be set before there are any."""
        self.interval = 5.0
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._tasks = TaskOwner("peers")
        self._watches: dict[str, list[asyncio.Task[None]]] = {}

    def set(self, addresses: Mapping[str, PeerAddress], interval: float) -> None:
        """Take over where the peers are; links to those that have not changed stay."""
        self.interval = interval
        for host in [host for host, peer in self.peers.items() if addresses.get(host) != peer.address]:
            peer = self.peers.pop(host)
            for watch in self._watches.pop(host):
                self._tasks.end(watch)
            self._tasks.spawn(peer.close(), name=f"close the link to {host}")
        for host, address in addresses.items():
            if host not in self.peers:
                peer = PeerDaemon(host, address, self._make_transport, self._clock, self._timeout, self.on_change)
                peer.on_news = self.on_news
                peer.mine = self.mine
                self.peers[host] = peer
                self._watches[host] = [
                    self._tasks.keep(partial(self._watch, peer), name=f"watch {host}"),
                    self._tasks.keep(partial(self._follow, peer), name=f"follow {host}"),
                ]

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

    async def settled(self, seconds: float) -> None:
        """Wait until each peer is known to be there or not, for so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(peer.tried() for peer in self.peers.values()))

    def services(self) -> list[ServiceStatus]:
        """Return every service of every peer that has been heard of, as it is seen from here. Any thread."""
        views = [peer.view(topic) for peer in list(self.peers.values()) for topic in list(peer.services)]
        return [view for view in views if view is not None]

    def reports(self) -> list[CapabilityReport]:
        """Return what the services of all peers last said they can do. Any thread."""
        return [report for peer in list(self.peers.values()) for report in peer.reports()]

    async def catch_up(self, seconds: float) -> None:
        """Have all peers that are there tell what has just changed; wait for so many seconds at most."""
        await asyncio.gather(*(peer.catch_up(seconds) for peer in list(self.peers.values()) if peer.up))

    async def _watch(self, peer: PeerDaemon) -> None:
        while True:
            try:
                await peer.look()
            except OstlerError as error:
                _log.debug("%s was asked for its services: %s", peer.host, error)
            await peer.rest(self.interval)

    async def _follow(self, peer: PeerDaemon) -> None:
        wait = _LEAST_WAIT
        while True:
            await peer.reached()
            began = asyncio.get_running_loop().time()
            try:
                await peer.follow()
            except OstlerError as error:
                _log.debug("%s tells no more of itself: %s", peer.host, error)
            # One that refuses at once each time is not pestered: there is still what it is asked.
            lasted = asyncio.get_running_loop().time() - began
            wait = _LEAST_WAIT if lasted > self.interval or not peer.up else min(2 * wait, self.interval)
            await asyncio.sleep(wait)
