"""The metrics of drivers that run in a process of their own: counted there, reported to the daemon as they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from ostler.errors import ContractError
from ostler.metrics.families import MetricFamily, MetricSeries
from ostler.metrics.instruments import Declaration
from ostler.metrics.metric_names import check_declaration, unit_of

MAX_SERIES = 10_000
"""The most series of a metric that are taken."""


class ReportedMetric:
    """A metric with the values of its last report; used like `Metric`.

    A process counts from 0. When another one reports, its counts are added to those of the ones before.

    Args:
        family: A report, without the labels of the owner; its values count with `update`.
    """

    def __init__(self, family: MetricFamily) -> None:
        self.declaration = declaration_of(family)
        self._series: dict[tuple[str, ...], MetricSeries] = {}
        self._past: dict[tuple[str, ...], MetricSeries] = {}
        self._source: object = None

    def update(self, family: MetricFamily, source: object) -> None:
        """Replace the values by those of a report.

        Args:
            family: The report, without the labels of the owner.
            source: The process that it is from; another one than before has begun at 0.
        """
        if self._source != source:
            self._source = source
            self.resume(list(self._series.values()))
        self._series = dict(self._past)
        for each in family.series:
            key = tuple(each.labels)
            self._series[key] = add_series(self._past[key], each) if key in self._past else each

    def resume(self, past: Iterable[MetricSeries]) -> None:
        """Go on from what was counted before a restart."""
        if self.declaration.kind != "gauge":
            self._past = {tuple(each.labels): each for each in past}
            self._series = dict(self._past)

    def read_series(self, owner: tuple[str, ...] = ()) -> Iterator[MetricSeries]:
        """Yield the series of the last report; `owner` comes before their labels."""
        for each in list(self._series.values()):
            yield replace(each, labels=[*owner, *each.labels])


def add_series(past: MetricSeries, now: MetricSeries) -> MetricSeries:
    """Return what was counted before a restart and since then together."""
    return replace(
        now,
        value=past.value + now.value,
        counts=[before + count for before, count in zip(past.counts, now.counts, strict=True)],
        exemplars={**past.exemplars, **now.exemplars},
    )


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
