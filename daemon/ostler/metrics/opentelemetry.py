"""The metrics of managers and drivers through the API of OpenTelemetry. Imported only where that is on.

Counters and gauges are read when the SDK collects; histograms are recorded as they are observed, except those of
drivers in processes of their own, of which only the buckets are known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics

import ostler

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

    from ostler.metrics.families import MetricFamily
    from ostler.metrics.instruments import Declaration

_INSTRUMENTATION_NAME = "ostler.metrics"
_UNITS = {
    "seconds": "s", "bytes": "By", "ratio": "1", "celsius": "Cel", "meters": "m", "volts": "V", "amperes": "A",
    "joules": "J", "grams": "g",
}  # fmt: skip


class OtelMetrics:
    """Exports metrics; implements `MetricExporter`. Any thread.

    An instrument cannot be removed: it is created once for each name, and has no values while its service is gone.

    Args:
        meters: Where metrics go; by default what the SDK of this process has set.
    """

    def __init__(self, meters: MeterProvider | None = None) -> None:
        self._meter = metrics.get_meter(_INSTRUMENTATION_NAME, ostler.__version__, meters)
        self._lock = threading.Lock()
        self._instruments: dict[str, Any] = {}

    def add_family(self, declaration: Declaration, read: Callable[[], MetricFamily]) -> None:
        """See `MetricExporter.add_family`."""
        with self._lock:
            if declaration.kind == "histogram":
                self._histogram(declaration)
            elif declaration.name not in self._instruments:
                create = (
                    self._meter.create_observable_counter
                    if declaration.kind == "counter"
                    else self._meter.create_observable_gauge
                )
                self._instruments[declaration.name] = create(
                    declaration.name,
                    callbacks=[lambda _options: _observations(read())],
                    unit=_UNITS.get(declaration.unit, ""),
                    description=declaration.help,
                )

    def observer(self, declaration: Declaration, labels: Mapping[str, str]) -> Callable[[float], None]:
        """See `MetricExporter.observer`."""
        with self._lock:
            histogram = self._histogram(declaration)
        attributes = dict(labels)
        return lambda value: histogram.record(value, attributes)

    def _histogram(self, declaration: Declaration) -> Histogram:
        found: Histogram | None = self._instruments.get(declaration.name)
        if found is None:
            found = self._instruments[declaration.name] = self._meter.create_histogram(
                declaration.name,
                unit=_UNITS.get(declaration.unit, ""),
                description=declaration.help,
                explicit_bucket_boundaries_advisory=list(declaration.bounds),
            )
        return found


def _observations(family: MetricFamily) -> Iterable[metrics.Observation]:
    return [
        metrics.Observation(series.value, dict(zip(family.labels, series.labels, strict=True)))
        for series in family.series
    ]
