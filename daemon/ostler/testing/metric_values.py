"""What was counted, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.metrics.families import MetricFamily


def metric_value(families: Iterable[MetricFamily], name: str, labels: Mapping[str, str]) -> float:
    """Return the sum of the series of a metric that have these labels; for a histogram the number of observations.

    Args:
        families: All metrics.
        name: The name of the metric.
        labels: Labels and their values; of labels that are not named all values count.

    Raises:
        AssertionError: There is no such metric, or it has no such label.
    """
    known = {family.name: family for family in families}
    family = known.get(name)
    if family is None:
        raise AssertionError(f"metric {name} not found; available: {', '.join(sorted(known)) or 'none'}")
    if missing := labels.keys() - set(family.labels):
        raise AssertionError(f"metric {name} has no label {', '.join(sorted(missing))}, it has: {family.labels}")
    found = 0.0
    for series in family.series:
        values = dict(zip(family.labels, series.labels, strict=True))
        if all(values[label] == value for label, value in labels.items()):
            found += sum(series.counts) if family.kind == "histogram" else series.value
    return found
