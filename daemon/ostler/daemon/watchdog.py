"""The watchdog: probes provide evidence, and systemd is pinged only when all of it is fresh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ostler.clock import Clock
from ostler.errors import error_line
from ostler.systemd import LivenessSignal, WatchdogGuard
from ostler.time_text import format_duration

_log = logging.getLogger(__name__)
DEFAULT_PROBE_INTERVAL = 60.0
"""Seconds between pings; without systemd's watchdog the evidence is still collected, for `ostler status`."""


class Watchdog:
    """Probes what must be alive, and pings when the guard finds all evidence fresh. On the loop.

    That this runs at all is evidence that the loop is running. Each probe verifies one more thing: the store's writer
    answers, the RPC socket answers, a critical service makes progress.

    Args:
        interval: Seconds after which systemd acts; None when it does not watch this process.
        ping: Sends the ping.
        clock: The source of time.
        on_lost: Called with one line when evidence became stale since the last check.
        on_recovered: Called when all evidence is fresh again.
    """

    def __init__(
        self,
        interval: float | None,
        ping: Callable[[], None],
        clock: Clock,
        on_lost: Callable[[str], None],
        on_recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._is_watched = interval is not None
        self._ping = ping
        self._clock = clock
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self._guard = WatchdogGuard(interval or DEFAULT_PROBE_INTERVAL)
        self._probes: dict[str, tuple[Callable[[], Awaitable[None]], LivenessSignal]] = {}
        self._last_errors: dict[str, str] = {}
        self._stale_lines: list[str] = []
        self._running_probes: dict[str, asyncio.Task[None]] = {}
        self._last_check = clock.monotonic()

    def add_probe(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Add a probe: a coroutine that returns when the thing works, and raises or hangs when it does not."""
        self._probes[name] = (probe, self._guard.register_signal(name, self._clock))

    @property
    def is_probing(self) -> bool:
        """Whether probes were registered: the start has come to it, and the stop has not."""
        return bool(self._probes)

    def probe_names(self) -> list[str]:
        """Return the names of the probes."""
        return list(self._probes)

    def remove_probe(self, name: str) -> None:
        """Remove a probe, because the thing is being stopped."""
        self._probes.pop(name, None)
        self._guard.unregister(name)

    def stale_signals(self) -> list[str]:
        """Return the probes without fresh evidence at the last check, a line each."""
        return self._stale_lines

    async def run(self) -> None:
        """Probe and ping indefinitely."""
        self._last_check = self._clock.monotonic()
        while True:
            self._forgive_suspension()
            for name, (probe, evidence) in list(self._probes.items()):
                running = self._running_probes.get(name)
                if running is None or running.done():
                    task = asyncio.get_running_loop().create_task(
                        self._probe(name, probe, evidence), name=f"watchdog: {name}"
                    )
                    self._running_probes[name] = task
            self._evaluate()
            await asyncio.sleep(self._guard.ping_interval)

    def _forgive_suspension(self) -> None:
        """Do not blame the parts for time in which the whole process, or its loop, did not run.

        Their evidence could not be asked for in that time. A part that hangs is found by the next checks, as ever.
        """
        now = self._clock.monotonic()
        late = now - self._last_check - self._guard.ping_interval
        self._last_check = now
        if late > self._guard.ping_interval:
            self._guard.forgive(late + self._guard.ping_interval)
            _log.warning(
                "the daemon did not run for %s: it was suspended, or its event loop was blocked", format_duration(late)
            )

    async def _probe(self, name: str, probe: Callable[[], Awaitable[None]], signal: LivenessSignal) -> None:
        try:
            await probe()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure is missing evidence
            self._last_errors[name] = error_line(error)
        else:
            signal.touch()
            self._last_errors.pop(name, None)

    def _evaluate(self) -> None:
        finding = self._guard.poll()
        self._stale_lines = [
            f"{missing}: {self._last_errors[missing.name]}" if missing.name in self._last_errors else str(missing)
            for missing in finding.stale
        ]
        if finding.newly_stale:
            self._on_lost("; ".join(self._stale_lines))
        if finding.recovered:
            _log.warning("%s: responding again", ", ".join(finding.recovered))
            if finding.is_alive:
                self._on_recovered()
        if finding.is_alive and self._is_watched:
            self._ping()

    async def stop(self) -> None:
        """Remove all probes, because everything is being stopped; pings continue as long as `run` does.

        From here on only a running loop is required: systemd's TimeoutStopSec limits how long a stop may take.
        """
        for name in list(self._probes):
            self.remove_probe(name)
        tasks = [task for task in self._running_probes.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
