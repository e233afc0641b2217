"""Watches how much CPU time the process of a driver uses."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from ostler.config.units import format_seconds

_SAMPLES = 20
"""Samples in one window; one more decides."""
_MIN_INTERVAL, _MAX_INTERVAL = 0.05, 5.0
"""Seconds between two samples."""


class CpuWatch:
    """Reports when a process has used more CPU than it may, on average over a window. On the loop.

    Nothing is sampled without a limit.

    Args:
        loop: For the samples.
        read_cpu: Returns the CPU time that the process has used, in seconds; raises OSError when it has ended.
        on_excess: Called with what it used, as a sentence, at most once for each limit.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, read_cpu: Callable[[], float], on_excess: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._read_cpu = read_cpu
        self._on_excess = on_excess
        self._limit = self._window = 0.0
        self._samples: deque[tuple[float, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def set_limit(self, limit: float, window: float) -> None:
        """Watch from now on; what was used before counts only if the limit was the same.

        Args:
            limit: CPUs, 0 for no limit.
            window: Seconds.
        """
        if (limit, window) == (self._limit, self._window):
            return
        self.stop()
        self._limit, self._window = limit, window
        if limit:
            self._sample()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._limit = self._window = 0.0
        self._samples.clear()

    def _sample(self) -> None:
        try:
            now, used = self._loop.time(), self._read_cpu()
        except OSError:  # it has ended
            self._timer = None
            return
        samples = self._samples
        samples.append((now, used))
        while len(samples) > 1 and samples[1][0] <= now - self._window:
            samples.popleft()
        since, used_before = samples[0]
        recently, seconds = used - used_before, max(self._window, now - since)
        if recently > self._limit * seconds:
            what = f"{format_seconds(round(recently, 1))} of CPU time within {format_seconds(round(seconds, 1))}"
            limit = self._limit
            self.stop()
            self._on_excess(f"it used {what}, more than its `cpu_limit` of {limit:g} CPUs allows")
            return
        interval = min(max(self._window / _SAMPLES, _MIN_INTERVAL), _MAX_INTERVAL)
        self._timer = self._loop.call_later(interval, self._sample)


def read_cpu_time(pid: int) -> float:
    """Return the CPU time that all threads of a process have used, in seconds; not that of its children.

    Args:
        pid: The process: one that has not been collected, as its number could belong to another one otherwise.

    Raises:
        OSError: There is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) returns
