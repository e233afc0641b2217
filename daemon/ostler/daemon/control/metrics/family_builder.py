"""Puts the series of the daemon's metrics together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ostler.bounds import escape_surrogates
from ostler.daemon.control.metrics.catalogue import CATALOGUE, LATENCY_BOUNDS
from ostler.daemon.control.metrics.counter_history import CounterHistory
from ostler.messaging.rpc.endpoint import MethodStats
from ostler.metrics.families import Exemplar, MetricFamily, MetricSeries

_FINE_BUCKETS = 200
"""Buckets of `MethodStats` at most: four for each doubling of a microsecond, up to some weeks."""
_MAX_NAMES = 50
"""Names of errors that are told apart; a plugin can make any number of them."""


def _bound_index(seconds: float) -> int:
    return next((i for i, bound in enumerate(LATENCY_BOUNDS) if seconds <= bound * 1.001), len(LATENCY_BOUNDS))


_INDEX_BY_BUCKET = [_bound_index(2 ** ((bucket + 1) / 4) / 1e6) for bucket in range(_FINE_BUCKETS)]
"""To which bucket of `LATENCY_BOUNDS` a bucket of `MethodStats` belongs; their bounds coincide."""


class FamilyBuilder:
    """Collects series by the name of their metric.

    Args:
        history: What counters had counted before.
    """

    def __init__(self, history: CounterHistory) -> None:
        self._series: dict[str, list[MetricSeries]] = {name: [] for name in CATALOGUE}
        self._history = history
        self.source: object = None
        """What counts that which is added next; see `CounterHistory`."""

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add the value of a combination of labels, which are in the order of the declaration."""
        series = MetricSeries(labels=[escape_surrogates(label) for label in labels], value=float(value))
        if name.endswith("_total"):
            series = self._history.add_past(name, series, self.source)
        self._series[name].append(series)

    def add_state(self, name: str, state: str, states: Iterable[str], *labels: str) -> None:
        """Add 1 for a state and 0 for the others."""
        series = self._series[name]
        for each in states:
            series.append(MetricSeries(labels=[*labels, str(each)], value=float(each == state)))

    def add_counts(self, name: str, counts: Mapping[str, int], *labels: str) -> None:
        """Add a count for each name, up to a limit, and the sum of those beyond it as `other`."""
        rest = 0
        for index, (key, count) in enumerate(counts.items()):  # the oldest first: what is told apart stays so
            if index < _MAX_NAMES:
                self.add(name, count, *labels, key)
            else:
                rest += count
        if rest:
            self.add(name, rest, *labels, "other")

    def add_latency(self, name: str, stats: MethodStats, *labels: str) -> None:
        """Add the times of the requests of a method."""
        counts = [0] * (len(LATENCY_BOUNDS) + 1)
        for bucket, count in stats.buckets.items():
            counts[_INDEX_BY_BUCKET[min(bucket, _FINE_BUCKETS - 1)]] += count
        exemplars: dict[int, Exemplar] = {}
        for each in (stats.exemplars or {}).values():
            exemplars[_bound_index(each.value)] = each
        series = MetricSeries(labels=list(labels), value=stats.total_seconds, counts=counts, exemplars=exemplars)
        self._series[name].append(self._history.add_past(name, series, self.source))

    def families(self) -> list[MetricFamily]:
        """Return the metrics that have series, in the order of the catalogue."""
        return [
            MetricFamily(
                name=name,
                kind=declared.kind,
                help=declared.help,
                unit=declared.unit,
                labels=list(declared.labels),
                bounds=list(LATENCY_BOUNDS) if declared.kind == "histogram" else [],
                series=self._series[name],
            )
            for name, declared in CATALOGUE.items()
            if self._series[name]
        ]
