"""Sends capability reports to the local scheduler, and to those of hosts whose daemons do not listen to this one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import (
    ConnectionLost,
    DaemonNotRunning,
    Draining,
    MethodNotFound,
    OstlerError,
    ServiceNotFound,
    error_line,
)
from ostler.service.capabilities.service_capabilities import ServiceCapabilities

if TYPE_CHECKING:
    from ostler.messaging import LocalServiceClient
    from ostler.messaging.network.routing import Router

_log = logging.getLogger(__name__)
_SEND_TIMEOUT = 5.0
"""Seconds that a scheduler has to take a report."""
_MIN_RETRY_DELAY = 0.25
_MAX_RETRY_DELAY = 30.0
"""Seconds after which a failed delivery is retried, doubled each time; first and longest."""
_HOST_POLL_INTERVAL = 1.0
"""Seconds between two checks of the known hosts, if there are any."""
_SCHEDULER_TOPIC = "scheduler"
_EXPECTED_ERRORS = (DaemonNotRunning, Draining, ServiceNotFound, MethodNotFound, ConnectionLost)
"""Errors of a scheduler that is starting, stopping or disconnected, reported elsewhere by its state, and of one that
takes no reports."""


class _SchedulerState:
    """One scheduler: what it has been sent, and since when its host is reachable (another link, another start)."""

    __slots__ = ("failures", "host", "is_sending", "reachable_since", "retry_at", "sent_sequences", "topic")

    def __init__(self, topic: str, host: str, reachable_since: float) -> None:
        self.topic = topic
        self.host = host
        self.reachable_since = reachable_since
        self.sent_sequences: dict[str, int] = {}
        self.failures = 0
        self.retry_at = 0.0
        self.is_sending = False


class CapabilityDelivery:
    """Sends what services offer to each scheduler that does not know it yet; of several reports only the last one.

    A daemon that listens to this one (`watch_host`) passes the reports to its scheduler itself. The others are hosts
    that this one knows and that do not know it.

    Args:
        client: Calls the schedulers.
        router: Knows on which hosts they are.
        clock: The source of time.
        states: What each service offers, by topic.
        tasks: Owner of the tasks.
        has_subscriber: Returns whether the daemon of another host listens to this one.
    """

    def __init__(
        self,
        client: LocalServiceClient,
        router: Router,
        clock: Clock,
        states: Mapping[str, ServiceCapabilities],
        tasks: TaskOwner,
        has_subscriber: Callable[[str], bool] = lambda _host: False,
    ) -> None:
        self._client = client
        self._router = router
        self._clock = clock
        self._states = states
        self._tasks = tasks
        self._has_subscriber = has_subscriber
        self._schedulers: dict[tuple[str, str], _SchedulerState] = {}
        self._progress_future: asyncio.Future[None] | None = None

    def send_pending(self) -> None:
        """Start sending everything that a scheduler does not know yet. On the loop."""
        self._update_schedulers()
        now = asyncio.get_running_loop().time()
        for one in self._schedulers.values():
            if not one.is_sending and one.retry_at <= now and self._ready_to_send(one):
                one.is_sending = True
                self._tasks.spawn(self._send(one), name=f"capabilities to {one.topic} on {one.host}")
        self._notify_progress()

    def seconds_to_next_check(self) -> float:
        """Return the seconds after which `start` must be called at the latest."""
        now = asyncio.get_running_loop().time()
        waits = [max(0.0, one.retry_at - now) for one in self._schedulers.values() if one.retry_at > now]
        if self._router.peers is not None:
            waits.append(_HOST_POLL_INTERVAL)
        return min(waits, default=3600.0)

    def is_pending(self, host: str) -> bool:
        """Whether a scheduler of a host that takes reports does not know the last one of each service."""
        return any(one.host == host and not one.failures and self._unsent(one) for one in self._schedulers.values())

    async def wait_for_progress(self) -> None:
        """Wait until something has been sent, answered or changed."""
        if self._progress_future is None:
            self._progress_future = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._progress_future)

    def _notify_progress(self) -> None:
        moved, self._progress_future = self._progress_future, None
        if moved is not None and not moved.done():
            moved.set_result(None)

    def _update_schedulers(self) -> None:
        """Update the known schedulers: one that is new, or was unreachable, knows nothing."""
        hosts = self._router.serving_hosts(_SCHEDULER_TOPIC)
        found = {host: since for host, since in hosts.items() if not self._has_subscriber(host)}
        for key in [key for key, one in self._schedulers.items() if found.get(one.host) != one.reachable_since]:
            del self._schedulers[key]
        for host, since in found.items():
            key = _SCHEDULER_TOPIC, host
            if key not in self._schedulers:
                self._schedulers[key] = _SchedulerState(_SCHEDULER_TOPIC, host, since)

    def _unsent(self, scheduler: _SchedulerState) -> list[ServiceCapabilities]:
        states = self._states.values()
        return [
            state
            for state in states
            if state.has_reported and scheduler.sent_sequences.get(state.topic) != state.sequence
        ]

    def _ready_to_send(self, scheduler: _SchedulerState) -> list[ServiceCapabilities]:
        return [state for state in self._unsent(scheduler) if state.enabled is not None]

    async def _send(self, scheduler: _SchedulerState) -> None:
        try:
            while news := self._ready_to_send(scheduler):
                for state in news:
                    await self._send_one(scheduler, state)
                    self._notify_progress()
            scheduler.failures, scheduler.retry_at = 0, 0.0
        except OstlerError as error:
            if not scheduler.failures and not isinstance(error, _EXPECTED_ERRORS):
                text = "cannot send the capabilities of this host to %s on %s, retrying: %s"
                _log.warning(text, scheduler.topic, scheduler.host, error_line(error))
            scheduler.failures += 1
            pause = min(_MAX_RETRY_DELAY, _MIN_RETRY_DELAY * 2.0 ** min(scheduler.failures - 1, 20))
            scheduler.retry_at = asyncio.get_running_loop().time() + pause
        finally:
            scheduler.is_sending = False
            self._notify_progress()

    async def _send_one(self, scheduler: _SchedulerState, state: ServiceCapabilities) -> None:
        report = state.make_report(self._clock.monotonic(), self._clock.wall())
        client = self._client.on(host=scheduler.host, timeout=_SEND_TIMEOUT)
        await client.acall(scheduler.topic, "update_capabilities", report=report)
        scheduler.sent_sequences[state.topic] = report.sequence
