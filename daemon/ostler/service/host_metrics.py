"""The metrics of the managers and drivers of a host, created when the first of them is declared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ostler.clock import Clock

if TYPE_CHECKING:
    from ostler.metrics.families import MetricFamily
    from ostler.metrics.registry import MetricExporter, MetricRegistry, Metrics


class HostMetrics:
    """Hands out what managers and drivers declare their metrics by. Any thread.

    Args:
        clock: The source of time.
        make_exporter: Returns what also gets all metrics; None for nobody.
    """

    def __init__(self, clock: Clock, make_exporter: Callable[[], MetricExporter | None] = lambda: None) -> None:
        self._clock = clock
        self._make_exporter = make_exporter
        self._registry: MetricRegistry | None = None
        self.on_remove: Callable[[str], None] | None = None
        """Called with a service before its metrics are removed, or those of one of its drivers."""
        self._lock = threading.Lock()

    def metrics_of(self, service: str, driver: str = "") -> Metrics:
        """Return the metrics of a manager, or of a driver of its service."""
        return self._get_registry().metrics_of(service, driver)

    def remove(self, service: str, driver: str = "") -> None:
        """Show the metrics of a service with its drivers, or those of one driver, no longer."""
        if self.on_remove is not None:
            self.on_remove(service)
        if self._registry is not None:
            self._registry.remove(service, driver)

    def read(self) -> list[MetricFamily]:
        """Return all metrics with their values now, by name."""
        return self._registry.read() if self._registry is not None else []

    def read_in_parts(self) -> Iterator[MetricFamily | None]:
        """Yield what `read` returns, and None where the reader may do something else."""
        return self._registry.read_in_parts() if self._registry is not None else iter(())

    def _get_registry(self) -> MetricRegistry:
        with self._lock:
            if self._registry is None:
                # 2 ms and their memory: most daemons have no manager that counts anything.
                from ostler.messaging.wire.request_context import current_trace
                from ostler.metrics.registry import MetricRegistry

                self._registry = MetricRegistry(self._clock, current_trace, self._make_exporter())
            return self._registry
