"""Turns the metrics that the daemon returns into the formats of Prometheus, with its own client library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import exposition as text_exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

Family = Mapping[str, Any]
"""A metric as `ostler.metrics` returns it."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exposition(NamedTuple):
    """Metrics as they are sent."""

    body: bytes
    content_type: str
    left_out: list[str]
    """Metrics that are left out because there are too many series."""


class _Families(Collector):
    """Metrics as the client library wants them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        return iter(self._metrics)


def choose_format(accept: str) -> str:
    """Return the content type for what a client accepts: OpenMetrics where it is named, else plain text."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return OPENMETRICS if "application/openmetrics-text" in kinds else TEXT


def expose(families: Iterable[Family], content_type: str, max_series: int) -> Exposition:
    """Return metrics in a format; those beyond the most series are left out whole.

    Args:
        families: The metrics.
        content_type: `TEXT` or `OPENMETRICS`.
        max_series: The most series, a histogram's counted by its buckets.
    """
    kept: list[Metric] = []
    left_out = []
    room = max_series
    for family in families:
        lines = len(family["series"]) * (len(family["bounds"]) + 3 if family["kind"] == "histogram" else 1)
        if lines > room:
            left_out.append(str(family["name"]))
            continue
        room -= lines
        kept.append(_metric(family))
    module: Any = openmetrics_exposition if content_type == OPENMETRICS else text_exposition
    return Exposition(module.generate_latest(_Families(kept)), content_type, left_out)


def _metric(family: Family) -> Metric:
    name, kind = family["name"], family["kind"]
    metric = Metric(name.removesuffix("_total"), family["help"], kind, family["unit"])
    names = family["labels"]
    for series in family["series"]:
        labels = dict(zip(names, series["labels"], strict=True))
        if kind == "histogram":
            _add_histogram(metric, name, labels, family["bounds"], series)
        else:
            metric.add_sample(name, labels, series["value"])
    return metric


def _add_histogram(
    metric: Metric, name: str, labels: dict[str, str], bounds: list[float], series: Mapping[str, Any]
) -> None:
    total = 0
    exemplars = {int(index): each for index, each in series["exemplars"].items()}
    for index, (bound, count) in enumerate(zip([*bounds, math.inf], series["counts"], strict=True)):
        total += count
        exemplar = _exemplar(exemplars[index]) if index in exemplars else None
        metric.add_sample(f"{name}_bucket", {**labels, "le": bound_text(bound)}, total, exemplar=exemplar)
    metric.add_sample(f"{name}_count", labels, total)
    metric.add_sample(f"{name}_sum", labels, series["value"])


def bound_text(bound: float) -> str:
    """Return the value of the label `le`."""
    return "+Inf" if math.isinf(bound) else repr(float(bound))


def _exemplar(found: Mapping[str, Any]) -> Exemplar:
    return Exemplar({"trace_id": found["trace_id"]}, found["value"], found["at"])
