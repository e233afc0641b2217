"""What a metric and its series look like to those who read them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ostler.wall_time import WallTime

MetricKind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Exemplar(msgspec.Struct, frozen=True, kw_only=True):
    """One observation of a histogram that belongs to a sampled trace: its id, the value, and its wall time."""

    trace_id: str
    value: float
    at: WallTime


class MetricSeries(msgspec.Struct, frozen=True, kw_only=True):
    """The value of one combination of labels.

    Attributes:
        labels: The values of the labels, in the order of `MetricFamily.labels`.
        value: The value; for a histogram the sum of all observations.
        counts: For a histogram, the observations within each of the `bounds` but not the one before, and those above.
        exemplars: For a histogram, an observation with a trace, by the index of its bucket.
    """

    labels: list[str] = []
    value: float = 0.0
    counts: list[int] = []
    exemplars: dict[int, Exemplar] = {}


class MetricFamily(msgspec.Struct, frozen=True, kw_only=True):
    """A metric with its series; names and units follow the conventions of Prometheus.

    Attributes:
        bounds: For a histogram, the upper bounds of its buckets, ascending, without the infinite one.
    """

    name: str
    kind: MetricKind
    help: str
    unit: str = ""
    labels: list[str] = []
    bounds: list[float] = []
    series: list[MetricSeries] = []
