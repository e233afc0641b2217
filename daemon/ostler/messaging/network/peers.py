"""The other daemons: a link to each, whether it is connected, and which services it has."""

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
from ostler.availability import observed, refusal_reason, unavailable_reason
from ostler.bounds import NAME_LIMIT, WHY_LIMIT, truncate
from ostler.clock import Clock
from ostler.errors import (
    Conflict,
    DaemonNotRunning,
    MessagingError,
    MethodNotFound,
    NotPermitted,
    OstlerError,
    error_line,
)
from ostler.messaging.clients.async_client import AsyncClient
from ostler.messaging.network.peer_identities import IDENTITY_HINT, identity_mismatch
from ostler.messaging.wire.transport import AsyncLink, OnLost, OnMessage, Transport
from ostler.spelling import suggest
from ostler.time_text import format_duration
from ostler.types import (
    CONTROL_TOPIC,
    CapabilityReport,
    HostIdentity,
    HostReport,
    MethodDescription,
    OperatorOverride,
    ServiceSign,
    ServiceState,
    ServiceStatus,
)

_log = logging.getLogger(__name__)
_MIN_RECONNECT_DELAY = 0.25
_MAX_RECONNECT_DELAY = 15.0
"""Seconds between two tries to reach a peer that is away: twice as long each time, up to this, and never quite as long
as others wait, so that a fleet does not come back all at once."""
_REPORT_TIMEOUT = 5.0
"""Seconds that a peer has to say which services it has; one that takes longer counts as away."""
_MAX_SERVICES = 1000
"""Services of a peer, and drivers of a service, that are stored."""
_MAX_SIGNS = 100
"""Signs of work of a service of a peer that are stored."""
_MAX_REPORT_BYTES = 2 * 1024 * 1024
"""Bytes of one report of capabilities of a peer that are stored: schedulers show them to whoever asks."""
_NO_TIMEOUT = 86400.0
"""Seconds that a stream of reports may last; then it is opened again."""
_MIN_POLL_INTERVAL = 0.1
"""Seconds between two questions to a peer that is there, whatever intervals its services have."""
_STARTING_POLL_INTERVAL = 0.5
"""Seconds until a peer is asked again that has something starting."""
_MIN_RETRY_INTERVAL = 0.25
"""Seconds between the beginnings of two tries to reach a peer that is away, however many callers ask for one."""
_REPLY_GRACE = 0.25
"""Seconds that an answer has beyond what the peer may wait before it."""
_REACH_TIMEOUT = 0.75
"""Seconds that a caller waits at most for the outcome of a try."""


class PeerAddress(NamedTuple):
    """Where another daemon listens for calls, and its public keys, the likeliest first."""

    rpc_address: str
    public_keys: tuple[str, ...]


MakeTransport = Callable[[PeerAddress, str], Transport]
"""Makes the transport to a peer that holds a key; whoever makes it has nothing to close."""
OnPeerUpdate = Callable[["PeerDaemon"], None]
"""Called with a peer whose state has changed."""
OnPeerStateChange = Callable[[str, str, str, float], None]
"""Called with a peer and `back`, `lost` or `refused`, the reason and the wall time; may repeat the last call."""

ForcedDown = Callable[[], Mapping[tuple[str, str], OperatorOverride]]


class PeerDaemon:
    """One other daemon. On the loop's thread only.

    Args:
        host: Its name.
        address: Where it is.
        make_transport: Makes what leads there.
        clock: The source of time.
        timeout: Deadline of a call that names none.
        on_update: Called after its services, its capabilities or the link have changed.
        on_state_change: Told what becomes of it.
        own_identity: The identity of this daemon; None if it is not sent.
    """

    def __init__(
        self,
        host: str,
        address: PeerAddress,
        make_transport: MakeTransport,
        clock: Clock,
        timeout: float | None,
        on_update: OnPeerUpdate | None = None,
        on_state_change: OnPeerStateChange | None = None,
        own_identity: HostIdentity | None = None,
    ) -> None:
        self.host = host
        self.address = address
        self.up = False
        self.why = "not connected yet"
        self.since = clock.wall()
        self.services: dict[str, ServiceStatus] = {}
        """What runs there as it was told last, by topic; `view` also knows of the link."""
        self._reports: list[CapabilityReport] = []
        self._on_update = on_update or _ignore_update
        self._last_report = HostReport(host="")
        self._last_heard_at = self._reported_at = clock.monotonic()
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._on_state_change = on_state_change
        self._own_identity = own_identity
        self.forced_down: ForcedDown = dict
        """Returns the services, by topic and host, that an operator said are down."""
        self.peer_identity: HostIdentity | None = None
        """The identity of the daemon when the link was made."""
        self._failed_polls = 0
        self._polls_started = self._polls_ended = 0
        """Polls that have started, and that have completed: the same number between two polls."""
        self._poll_started_at = -math.inf
        self._wake_up = asyncio.Event()
        self._poll_done = asyncio.Event()
        """Set at the end of the look that is in progress, or else of the next one; then there is another one."""
        self.client = self._connect()

    def runs(self, topic: str) -> bool:
        """Return whether it runs a service on a topic, whatever its state."""
        return topic in self.services

    def status_of(self, topic: str) -> ServiceStatus | None:
        """Return a service there as it is seen from here, None for one that it has not."""
        row = self.services.get(topic)
        if row is not None and (forced := self.forced_down().get((topic, self.host))) is not None:
            row = observed(msgspec.structs.replace(row, forced_down=forced))
        if row is None or self.up:
            return row
        age = self._clock.monotonic() - self._last_heard_at
        return observed(msgspec.structs.replace(row, link=self.unreachable_error().message, age=age))

    def reports(self) -> list[CapabilityReport]:
        """Return what its services offer, as it was told last: older by as long as that is ago."""
        held = self._clock.monotonic() - self._reported_at
        return [_add_age(report, held) for report in self._reports]

    def accepts(self, topic: str) -> bool:
        """Return whether a service there takes work, as far as is known, or will in a moment."""
        row = self.status_of(topic)
        return row is not None and (self.is_starting(topic) or not refusal_reason(row))

    def is_starting(self, topic: str) -> bool:
        """Return whether a service there is starting, and its host can be reached."""
        row = self.services.get(topic)
        return self.up and row is not None and row.state is ServiceState.STARTING

    def is_available(self, topic: str) -> bool:
        """Return whether a service there may be chosen for new work."""
        row = self.status_of(topic)
        return row is not None and not unavailable_reason(row)

    def unreachable_error(self) -> DaemonNotRunning:
        """Return the error of a call to a daemon that is known to be away."""
        return DaemonNotRunning(
            f"{self.host} has been unreachable for {format_duration(self._clock.wall() - self.since)}: {self.why}",
            hint="retrying automatically; see `ostler status` on that host",
            host=self.host,
            since=self.since,
        )

    async def describe(self, topic: str, method: str) -> MethodDescription:
        """Return what a method there is: which role it requires, and what it keeps secret.

        Raises:
            ServiceNotFound: It has no such service.
            MethodNotFound: The service has no such method.
            OstlerError: It could not be asked.
        """
        found: list[MethodDescription] = await self.client.on(
            type=list[MethodDescription], timeout=_REPORT_TIMEOUT
        ).call(CONTROL_TOPIC, "describe", topic=topic)
        for description in found:
            if description.method == method:
                return description
        raise MethodNotFound(
            f"{topic} on {self.host} has no method {method!r}",
            hint=suggest(method, [each.method for each in found]),
        )

    def retry_now(self) -> None:
        """Retry an unreachable peer at once: a request needs it, or it was heard from."""
        if not self.up:
            self._wake_up.set()

    async def wait_reachable(self, timeout: float | None) -> float:
        """Have a peer that is away tried at once, and wait for the outcome of that one try.

        However many callers wait there is one try at a time, and no more than four in a second. One that was in
        progress when the caller came may have met a daemon that was not there yet: it counts only if it has reached the
        peer.

        Args:
            timeout: Seconds that the caller has; it waits for less than one at most.

        Returns:
            The seconds that it took.

        Raises:
            DaemonNotRunning: It is away.
        """
        loop = asyncio.get_running_loop()
        began, wanted = loop.time(), self._polls_started + 1
        self.retry_now()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REACH_TIMEOUT if timeout is None else min(timeout, _REACH_TIMEOUT)):
                while not self.up and self._polls_ended < wanted:
                    await self._poll_done.wait()
        if not self.up:
            raise self.unreachable_error()
        return loop.time() - began

    async def wait_first_poll(self) -> None:
        """Wait until it has been asked once, whatever came of that."""
        while not self._polls_ended:
            await self._poll_done.wait()

    async def wait_connected(self) -> None:
        """Wait until it is there."""
        while not self.up:
            await self._poll_done.wait()

    async def exchange_identity(self) -> HostIdentity | None:
        """Say who this daemon is, and ask who is there; None when it does not know of that.

        Raises:
            Conflict: It is not the host that it should be, or another daemon is.
            OstlerError: It could not be asked.
        """
        if self._own_identity is None:
            return None
        said = msgspec.structs.asdict(self._own_identity)
        try:
            found: HostIdentity = await self.client.on(type=HostIdentity, timeout=_REPORT_TIMEOUT).call(
                CONTROL_TOPIC, "hello", **said
            )
        except MethodNotFound:  # of an earlier version
            return None
        if why := identity_mismatch(self._own_identity, found, self.host):
            raise Conflict(f"{self.address.rpc_address} is refused: {why}", hint=IDENTITY_HINT, host=self.host)
        return found

    async def poll(self) -> list[ServiceStatus]:
        """Ask it which services it has, and record the answer.

        Raises:
            OstlerError: It cannot be reached, or is another daemon.
        """
        self._wake_up.clear()
        self._polls_started += 1
        self._poll_started_at = asyncio.get_running_loop().time()
        try:
            return await self._poll_once()
        finally:
            self._polls_ended = self._polls_started
            ended, self._poll_done = self._poll_done, asyncio.Event()
            ended.set()

    async def _poll_once(self) -> list[ServiceStatus]:
        try:
            if not self.up:
                self.peer_identity = await self.exchange_identity()
            report = await self.client.on(type=HostReport, timeout=_REPORT_TIMEOUT).call(CONTROL_TOPIC, "host_report")
            if report.host != self.host:
                raise Conflict(
                    f"{self.address.rpc_address} is {self.host} in [network.peers], but the daemon there is "
                    f"{report.host}",
                    hint="use the name that the peer sets as `host` in its [daemon]",
                )
        except OstlerError as error:
            await self._on_poll_failed(error)
            raise
        self._failed_polls = 0
        self._wake_up.clear()
        fresh = self._apply_report(report)
        if not self.up:
            _log.info("connected to %s, services: %s", self.host, ", ".join(self.services) or "none")
            self._set_state(up=True, why="")
        elif fresh:
            self._on_update(self)
        return list(self.services.values())

    async def refresh(self) -> None:
        """Ask it for its services now, beside what is told and asked anyway: something was just done there.

        Raises:
            OstlerError: It could not be asked.
        """
        report = await self.client.on(type=HostReport, timeout=_REPORT_TIMEOUT).call(CONTROL_TOPIC, "host_report")
        if report.host == self.host and self.up and self._apply_report(report):
            self._on_update(self)

    async def follow(self) -> None:
        """Record what it tells of itself as soon as that changes, until the link is lost.

        Raises:
            OstlerError: It tells no more; what it is asked every few seconds goes on.
        """
        async with self.client.on(type=HostReport, timeout=_NO_TIMEOUT).stream(CONTROL_TOPIC, "watch_host") as reports:
            async for report in reports:
                if report.host == self.host and self.up and self._apply_report(report):
                    self._on_update(self)

    async def flush_reports(self, timeout: float) -> None:
        """Have it tell now what it offers, and what has just changed there; wait for so many seconds at most."""
        try:
            report = await self.client.on(type=HostReport, timeout=timeout + _REPLY_GRACE).call(
                CONTROL_TOPIC, "host_report", flush=timeout
            )
        except OstlerError as error:
            _log.debug("could not fetch the latest changes of %s: %s", self.host, error)
            return
        if report.host == self.host and self.up and self._apply_report(report):
            self._on_update(self)

    def _apply_report(self, report: HostReport) -> bool:
        """Record what it tells; return False for an answer that was overtaken by what was told later."""
        self._last_heard_at = self._clock.monotonic()
        known = self._last_report
        if report.instance == known.instance and report.sequence < known.sequence:
            return False
        self._last_report = report
        rows = [_limit_texts(row) for row in report.services[:_MAX_SERVICES] if _is_current(row, self.host)]
        self.services = {row.topic: row for row in rows}
        reports = [each for each in report.capabilities[:_MAX_SERVICES] if each.host == self.host]
        self._reports = [each for each in reports if len(msgspec.msgpack.encode(each)) <= _MAX_REPORT_BYTES]
        self._reported_at = self._last_heard_at
        return True

    async def wait_next_poll(self, interval: float) -> None:
        """Wait until it is to be asked again.

        Sooner when its link is lost, later when it cannot be reached, and then at once when somebody wants it.
        """
        wait = interval
        if self.up and any(map(self.is_starting, self.services)):
            wait = min(interval, _STARTING_POLL_INTERVAL)
        elif self.up:
            # A service is to be heard of as often as it says itself, whatever we think is often.
            own = [row.report_interval for row in self.services.values() if row.report_interval]
            wait = max(_MIN_POLL_INTERVAL, min([interval, *own]))
        elif not self.up:
            longest = min(_MIN_RECONNECT_DELAY * 2 ** min(self._failed_polls, 10), _MAX_RECONNECT_DELAY)
            wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake_up.wait()
        if not self.up:
            await asyncio.sleep(self._poll_started_at + _MIN_RETRY_INTERVAL - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Cancel what is in progress there and close the link."""
        await self.client.close()

    def _connect(self) -> AsyncClient:
        keys = self.address.public_keys
        transport = _LossReportingTransport(
            self._make_transport(self.address, keys[self._failed_polls % len(keys)]), self._on_link_lost
        )
        return AsyncClient(transport=cast("Transport", transport), timeout=self._timeout, clock=self._clock)

    async def _on_poll_failed(self, error: OstlerError) -> None:
        self._failed_polls += 1
        self._set_state(up=False, why=error_line(error), refused=isinstance(error, (NotPermitted, Conflict)))
        if len(self.address.public_keys) > 1 and isinstance(error, NotPermitted):
            # While a peer changes its key, it is not known which one it uses.
            old, self.client = self.client, self._connect()
            await old.close()

    def _on_link_lost(self, error: MessagingError) -> None:
        if self.up:
            self._set_state(up=False, why=error.message)
            self._wake_up.set()

    def _set_state(self, *, up: bool, why: str, refused: bool = False) -> None:
        if (self.up and not up) or (refused and self.why != why):
            _log.warning("%s is unreachable: %s", self.host, why)
        changed, self.up, self.why = self.up != up, up, why
        if changed:
            self.since = self._clock.wall()
            self._on_update(self)
        if self._on_state_change is not None:
            self._on_state_change(self.host, "refused" if refused else "back" if up else "lost", why, self.since)


def _is_current(row: ServiceStatus, host: str) -> bool:
    return row.host == host and row.state is not ServiceState.GONE


def _limit_texts(row: ServiceStatus) -> ServiceStatus:
    """Return what another daemon says of a service in lengths that can be kept, and shown here."""
    drivers = [
        msgspec.structs.replace(
            each, why=truncate(each.why, WHY_LIMIT), last_error=truncate(each.last_error, WHY_LIMIT)
        )
        for each in row.drivers[:_MAX_SERVICES]
    ]
    texts = {
        name: truncate(getattr(row, name), WHY_LIMIT) for name in ("why", "disabled_reason", "disabled_by", "manager")
    }
    evidence = {
        truncate(about, NAME_LIMIT): truncate(why, WHY_LIMIT)
        for about, why in islice(row.evidence.items(), _MAX_SERVICES)
    }
    # Of its age and of the link it can know nothing, and whether it is up is decided here.
    return observed(
        msgspec.structs.replace(
            row,
            drivers=drivers,
            evidence=evidence,
            here=False,
            age=0.0,
            link="",
            addressable=True,
            frozen=_limit_override(row.frozen),
            forced_down=None,
            causes=[],
            signs=[_limit_sign(sign) for sign in row.signs[:_MAX_SIGNS]],
            depends_on=[truncate(each, NAME_LIMIT) for each in row.depends_on[:_MAX_SERVICES]],
            **texts,
        )
    )


def _limit_sign(sign: ServiceSign) -> ServiceSign:
    return ServiceSign(subject=truncate(sign.subject, NAME_LIMIT), age=sign.age, text=truncate(sign.text, WHY_LIMIT))


def _limit_override(override: OperatorOverride | None) -> OperatorOverride | None:
    if override is None:
        return None
    by, reason = truncate(override.by, WHY_LIMIT), truncate(override.reason, WHY_LIMIT)
    return OperatorOverride(by=by, reason=reason, since=override.since)


def _add_age(report: CapabilityReport, seconds: float) -> CapabilityReport:
    return msgspec.structs.replace(report, ages={name: age + seconds for name, age in report.ages.items()})


def _ignore_update(_peer: PeerDaemon) -> None:
    """Do nothing; the default of a callback."""


class _LossReportingTransport:
    """A transport that tells of each link that is lost; opens links for calls only."""

    def __init__(self, transport: Transport, on_link_lost: Callable[[MessagingError], None]) -> None:
        self._transport = transport
        self._on_link_lost = on_link_lost

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        def lost(error: MessagingError) -> None:
            self._on_link_lost(error)
            on_lost(error)

        return self._transport.connect_async(on_message, lost)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class PeerSet:
    """All other daemons. On the loop's thread only.

    Args:
        make_transport: Makes what leads to a peer.
        clock: The source of time.
        timeout: Deadline of a call that names none.
        on_update: Told after what is known of a peer has changed: its services, its capabilities, the link.
        on_state_change: Called with each change of a peer's state.
        own_identity: Who this daemon is; None if peers are not told.
        forced_down: Returns the services, by topic and host, that an operator said are down.
    """

    def __init__(
        self,
        make_transport: MakeTransport,
        clock: Clock,
        timeout: float | None,
        on_update: OnPeerUpdate | None = None,
        on_state_change: OnPeerStateChange | None = None,
        own_identity: HostIdentity | None = None,
        forced_down: ForcedDown = dict,
    ) -> None:
        self.peers: dict[str, PeerDaemon] = {}
        self._on_update = on_update or _ignore_update
        self._on_state_change = on_state_change
        self._own_identity = own_identity
        self._forced_down = forced_down
        self.poll_interval = 5.0
        self._make_transport = make_transport
        self._clock = clock
        self._timeout = timeout
        self._tasks = TaskOwner("peers")
        self._peer_tasks: dict[str, list[asyncio.Task[None]]] = {}

    def configure(self, addresses: Mapping[str, PeerAddress], poll_interval: float) -> None:
        """Take over where the peers are; links to those that have not changed stay."""
        self.poll_interval = poll_interval
        for host in [host for host, peer in self.peers.items() if addresses.get(host) != peer.address]:
            peer = self.peers.pop(host)
            for watch in self._peer_tasks.pop(host):
                self._tasks.cancel_task(watch)
            self._tasks.spawn(peer.close(), name=f"close the link to {host}")
        for host, address in addresses.items():
            if host not in self.peers:
                self.peers[host] = peer = self._make_peer(host, address)
                self._peer_tasks[host] = [
                    self._tasks.supervise(partial(self._poll_loop, peer), name=f"watch {host}"),
                    self._tasks.supervise(partial(self._follow_loop, peer), name=f"follow {host}"),
                ]

    def _make_peer(self, host: str, address: PeerAddress) -> PeerDaemon:
        peer = PeerDaemon(
            host,
            address,
            self._make_transport,
            self._clock,
            self._timeout,
            self._on_update,
            self._on_state_change,
            self._own_identity,
        )
        peer.forced_down = self._forced_down
        return peer

    def peers_with(self, topic: str) -> list[PeerDaemon]:
        """Return the peers that run a service on a topic, in the order of their names."""
        return [peer for _, peer in sorted(self.peers.items()) if peer.runs(topic)]

    def stats(self) -> dict[str, dict[str, object]]:
        """Return what is known of each peer."""
        return {
            host: {"up": peer.up, "since": peer.since, "why": peer.why, "services": sorted(peer.services)}
            for host, peer in sorted(self.peers.items())
        }

    def problems(self) -> list[str]:
        """Return the watches of peers that failed not long ago, a line each."""
        return self._tasks.problems()

    async def close(self) -> None:
        """End all links."""
        await self._tasks.cancel()
        await asyncio.gather(*(peer.close() for peer in self.peers.values()), return_exceptions=True)
        self.peers.clear()

    async def wait_first_polls(self, timeout: float) -> None:
        """Wait until each peer is known to be there or not, for so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(peer.wait_first_poll() for peer in self.peers.values()))

    def services(self) -> list[ServiceStatus]:
        """Return every service of every peer that has been heard of, as it is seen from here. Any thread."""
        views = [peer.status_of(topic) for peer in list(self.peers.values()) for topic in list(peer.services)]
        return [view for view in views if view is not None]

    def reports(self) -> list[CapabilityReport]:
        """Return what the services of all peers last said they can do. Any thread."""
        return [report for peer in list(self.peers.values()) for report in peer.reports()]

    async def flush_reports(self, timeout: float) -> None:
        """Have all peers that are there tell what has just changed; wait for so many seconds at most."""
        await asyncio.gather(*(peer.flush_reports(timeout) for peer in list(self.peers.values()) if peer.up))

    async def _poll_loop(self, peer: PeerDaemon) -> None:
        while True:
            try:
                await peer.poll()
            except OstlerError as error:
                _log.debug("could not fetch the services of %s: %s", peer.host, error)
            await peer.wait_next_poll(self.poll_interval)

    async def _follow_loop(self, peer: PeerDaemon) -> None:
        wait = _MIN_RETRY_INTERVAL
        while True:
            await peer.wait_connected()
            began = asyncio.get_running_loop().time()
            try:
                await peer.follow()
            except OstlerError as error:
                _log.debug("the stream of reports from %s ended: %s", peer.host, error)
            # A peer that refuses each time is not asked again at once: it is polled anyway.
            lasted = asyncio.get_running_loop().time() - began
            wait = (
                _MIN_RETRY_INTERVAL if lasted > self.poll_interval or not peer.up else min(2 * wait, self.poll_interval)
            )
            await asyncio.sleep(wait)
