"""Brings capability reports to the scheduler here, and to those of hosts whose daemons do not listen to this one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import ConnectionLost, Draining, NotRunning, OstlerError, TargetNotFound, describe
from ostler.service.capability_state import ServiceCapabilities

if TYPE_CHECKING:
    from ostler.messaging import LocalServiceClient

_log = logging.getLogger(__name__)
_TIMEOUT = 5.0
"""Seconds that a scheduler has to take a report."""
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
"""Seconds after which a scheduler that did not take a report is tried again: twice as long each time."""
_LOOK = 1.0
"""Seconds between two looks at which hosts there are, where there are any."""
_SCHEDULER = "scheduler"
_COMES_OR_GOES = (NotRunning, Draining, TargetNotFound, ConnectionLost)
"""Errors of a scheduler that starts, stops or is cut off just now: its state says so elsewhere."""


class _Scheduler:
    """One scheduler: what it has been sent, and since when its host can be reached (another link, another start)."""

    __slots__ = ("again_at", "busy", "failures", "host", "sent", "since", "topic")

    def __init__(self, topic: str, host: str, since: float) -> None:
        self.topic = topic
        self.host = host
        self.since = since
        self.sent: dict[str, int] = {}
        self.failures = 0
        self.again_at = 0.0
        self.busy = False


class CapabilityDelivery:
    """Sends what services offer to each scheduler that does not know it yet; of several reports only the last one.

    A daemon that listens to what this one tells of its host (`watch_host`) gives the reports to its scheduler itself.
    The others are hosts that this one knows and that do not know it.

    Args:
        client: Reaches the schedulers.
        clock: The source of time.
        states: What each service offers, by topic.
        tasks: Owner of the tasks.
        tells: Returns whether the daemon of another host is told of this one anyway.
    """

    def __init__(
        self,
        client: LocalServiceClient,
        clock: Clock,
        states: Mapping[str, ServiceCapabilities],
        tasks: TaskOwner,
        tells: Callable[[str], bool] = lambda _host: False,
    ) -> None:
        self._client = client
        self._clock = clock
        self._states = states
        self._tasks = tasks
        self._tells = tells
        self._schedulers: dict[tuple[str, str], _Scheduler] = {}
        self._moved: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Have everything sent that a scheduler does not know yet. On the loop."""
        self._look()
        now = asyncio.get_running_loop().time()
        for one in self._schedulers.values():
            if not one.busy and one.again_at <= now and self._news(one):
                one.busy = True
                self._tasks.spawn(self._send(one), name=f"capabilities to {one.topic} on {one.host}")
        self._note()

    def look_again(self) -> float:
        """Return the seconds after which `start` has to be called, whatever happens."""
        now = asyncio.get_running_loop().time()
        waits = [max(0.0, one.again_at - now) for one in self._schedulers.values() if one.again_at > now]
        if self._client.router.fleet is not None:
            waits.append(_LOOK)
        return min(waits, default=3600.0)

    def pending(self, host: str) -> bool:
        """Whether a scheduler of a host that takes reports does not know the last one of each service."""
        return any(one.host == host and not one.failures and self._unknown_to(one) for one in self._schedulers.values())

    async def progress(self) -> None:
        """Wait until something has been sent, answered or changed."""
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._moved)

    def _note(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None and not moved.done():
            moved.set_result(None)

    def _look(self) -> None:
        """Take note of which schedulers there are: one that is new, or has been away, knows nothing."""
        hosts = self._client.router.hosts(_SCHEDULER)
        found = {host: since for host, since in hosts.items() if not self._tells(host)}
        for key in [key for key, one in self._schedulers.items() if found.get(one.host) != one.since]:
            del self._schedulers[key]
        for host, since in found.items():
            key = _SCHEDULER, host
            if key not in self._schedulers:
                self._schedulers[key] = _Scheduler(_SCHEDULER, host, since)

    def _unknown_to(self, one: _Scheduler) -> list[ServiceCapabilities]:
        states = self._states.values()
        return [state for state in states if state.spoken and one.sent.get(state.topic) != state.sequence]

    def _news(self, one: _Scheduler) -> list[ServiceCapabilities]:
        return [state for state in self._unknown_to(one) if state.enabled is not None]

    async def _send(self, one: _Scheduler) -> None:
        try:
            while news := self._news(one):
                for state in news:
                    await self._send_one(one, state)
                    self._note()
            one.failures, one.again_at = 0, 0.0
        except OstlerError as error:
            if not one.failures and not isinstance(error, _COMES_OR_GOES):
                text = "the capabilities of this host cannot be sent to %s on %s, it is tried again: %s"
                _log.warning(text, one.topic, one.host, describe(error))
            one.failures += 1
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(one.failures - 1, 20))
            one.again_at = asyncio.get_running_loop().time() + pause
        finally:
            one.busy = False
            self._note()

    async def _send_one(self, one: _Scheduler, state: ServiceCapabilities) -> None:
        report = state.report(self._clock.monotonic(), self._clock.wall())
        client = self._client.on(host=one.host, timeout=_TIMEOUT)
        await client.acall(one.topic, "update_capabilities", report=report)
        one.sent[state.topic] = report.sequence
