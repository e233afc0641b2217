"""The metrics of drivers that run in a process of their own: counted there, reported to the daemon as they change."""

from __future__ import annotations

from msgspec.structs import replace

from ostler.errors import ContractError
from ostler.metrics.families import MetricFamily, MetricSeries
from ostler.metrics.instruments import Declaration
from ostler.metrics.metric_names import check_declaration, unit_of

MAX_SERIES = 10_000
"""The most series of a metric that are taken."""


class ReportedMetric:
    """A metric with the values of its last report; used like `Metric`.

    Args:
        family: The report, without the labels of the owner.
    """

    def __init__(self, family: MetricFamily) -> None:
        self.declaration = declaration_of(family)
        self.family = family

    def read(self) -> MetricFamily:
        """Return the metric with the values of the last report."""
        return self.family


def declaration_of(family: MetricFamily) -> Declaration:
    """Return the declaration of a metric.

    Raises:
        ContractError: It is not one that could have been declared.
    """
    labels, bounds = tuple(family.labels), tuple(family.bounds)
    check_declaration(family.kind, family.name, family.help, labels, bounds)
    return Declaration(family.name, family.kind, family.help, labels, bounds, unit_of(family.name))


def without_owner(family: MetricFamily, owner_labels: int) -> MetricFamily:
    """Return a reported metric without the labels that say whose it is: that is known from where it comes.

    Raises:
        ContractError: Its series do not fit its declaration.
    """
    for each in family.series[:MAX_SERIES]:
        buckets = len(family.bounds) + 1 if family.kind == "histogram" else 0
        if len(each.labels) != len(family.labels) or len(each.counts) != buckets:
            raise ContractError(f"metric {family.name} has series that do not fit its declaration")
    return replace(
        family,
        labels=family.labels[owner_labels:],
        series=[_without_labels(each, owner_labels) for each in family.series[:MAX_SERIES]],
    )


def _without_labels(series: MetricSeries, count: int) -> MetricSeries:
    return replace(series, labels=series.labels[count:])
