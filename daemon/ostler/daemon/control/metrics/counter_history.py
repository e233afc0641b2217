"""Lets counters go on when what counts is replaced: a service is restarted, a socket is opened anew."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from ostler.metrics.families import MetricSeries
from ostler.metrics.reported import add_series

_MAX_SERIES = 50_000
"""Series that are remembered; the oldest are forgotten first."""


class _Seen(NamedTuple):
    """A series as it was last read: by what was counted before, by whom it is counted now, and its value there."""

    past: MetricSeries | None
    source: weakref.ref[Any] | None
    last: MetricSeries


class CounterHistory:
    """Remembers what counters had counted, and adds it when they begin again at 0. On the loop."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], _Seen] = {}

    def add_past(self, name: str, series: MetricSeries, source: object = None) -> MetricSeries:
        """Return a series with what was counted before its counter was replaced.

        Args:
            name: The name of the metric.
            series: What is counted now.
            source: What counts; another one has begun at 0. None for the daemon itself, which shows by its values.
        """
        key = name, *series.labels
        reference = weakref.ref(source) if source is not None else None  # the same one for the same object
        seen = self._seen.get(key)
        past = None
        if seen is not None:
            past = seen.past
            if seen.source is not reference or _is_less(series, seen.last):
                past = seen.last if past is None else add_series(past, seen.last)
        elif len(self._seen) >= _MAX_SERIES:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = _Seen(past, reference, series)
        return series if past is None else add_series(past, series)


def _is_less(now: MetricSeries, before: MetricSeries) -> bool:
    return now.value < before.value or sum(now.counts) < sum(before.counts)
