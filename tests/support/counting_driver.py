"""A driver that counts what it does, in whatever process it runs."""

from __future__ import annotations

import os

from ostler import Driver


class CountingDriver(Driver):
    """Counts what it does; in whatever process it runs."""

    def __init__(self, environment):
        super().__init__(environment)
        self._switched = self.metrics.counter("counting_switched_total", "Switches", labels=["to"])
        self._seconds = self.metrics.histogram("counting_switch_seconds", "Time to switch", buckets=[0.5, 1])

    def switch(self, on: bool) -> None:
        self._switched.labels(to="on" if on else "off").inc()
        self._seconds.observe(0.7)

    def die(self) -> None:
        """End the process, which is one of its own, without a word."""
        os._exit(1)
