"""The watchdog: probes leave evidence, and systemd is pinged only when all of it is fresh (DESIGN 10)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ostler.clock import Clock
from ostler.errors import describe
from ostler.systemd import Evidence, WatchdogGuard

_log = logging.getLogger(__name__)
UNWATCHED_INTERVAL = 60.0
"""Seconds; without a watchdog of systemd's the evidence is collected all the same, for `ostler status`."""


class Watchdog:
    """Probes what must be alive, and pings when the guard finds all evidence fresh. On the loop.

    That this runs at all is the evidence that the loop turns. Each probe proves one more thing: that the store's writer
    answers, that the RPC socket answers, that a critical service makes progress.

    Args:
        interval: Seconds after which systemd acts; None when it does not watch this process.
        ping: Sends the ping.
        clock: The source of time.
        on_lost: Called with one line when evidence has gone missing since the last look.
        on_back: Called when all evidence is there again.
    """

    def __init__(
        self,
        interval: float | None,
        ping: Callable[[], None],
        clock: Clock,
        on_lost: Callable[[str], None],
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._watched = interval is not None
        self._ping = ping
        self._clock = clock
        self._on_lost = on_lost
        self._on_back = on_back
        self._guard = WatchdogGuard(interval or UNWATCHED_INTERVAL)
        self._probes: dict[str, tuple[Callable[[], Awaitable[None]], Evidence]] = {}
        self._why: dict[str, str] = {}
        self._lines: list[str] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    def add(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Ask for evidence: a coroutine that returns when the thing works, and raises or hangs when it does not."""
        self._probes[name] = (probe, self._guard.evidence(name, self._clock))

    def forget(self, name: str) -> None:
        """Ask no more for this evidence, because the thing is being stopped."""
        self._probes.pop(name, None)
        self._guard.forget(name)

    def missing(self) -> list[str]:
        """Return what there was no fresh evidence for at the last look, a line each."""
        return self._lines

    async def run(self) -> None:
        """Probe and ping for ever."""
        while True:
            for name, (probe, evidence) in list(self._probes.items()):
                running = self._running.get(name)
                if running is None or running.done():
                    task = asyncio.get_running_loop().create_task(
                        self._probe(name, probe, evidence), name=f"watchdog: {name}"
                    )
                    self._running[name] = task
            self._judge()
            await asyncio.sleep(self._guard.spacing)

    async def _probe(self, name: str, probe: Callable[[], Awaitable[None]], evidence: Evidence) -> None:
        try:
            await probe()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure is missing evidence
            self._why[name] = describe(error)
        else:
            evidence.seen()
            self._why.pop(name, None)

    def _judge(self) -> None:
        finding = self._guard.look()
        self._lines = [
            f"{missing}: {self._why[missing.name]}" if missing.name in self._why else str(missing)
            for missing in finding.missing
        ]
        if finding.lost:
            self._on_lost("; ".join(self._lines))
        if finding.back:
            _log.warning("there are signs of life again from %s", ", ".join(finding.back))
            if finding.alive:
                self._on_back()
        if finding.alive and self._watched:
            self._ping()

    async def stop(self) -> None:
        """Ask for no evidence any more, because everything is being stopped; pings go on for as long as `run` does.

        That the loop turns is all there is to prove from here on: how long a stop may take is for systemd's
        TimeoutStopSec to say.
        """
        for name in list(self._probes):
            self.forget(name)
        tasks = [task for task in self._running.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
