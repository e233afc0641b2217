"""`Metrics`, by which a manager or driver declares its metrics, and the metrics of all services of a daemon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ostler.errors import ContractError
from ostler.metrics.families import MetricFamily, MetricKind, MetricSeries
from ostler.metrics.instruments import (
    Counter,
    CounterSeries,
    Declaration,
    Gauge,
    GaugeSeries,
    Histogram,
    HistogramSeries,
    Metric,
    MetricSetting,
)
from ostler.metrics.metric_names import DEFAULT_BUCKETS, check_declaration, unit_of
from ostler.metrics.reported import MAX_SERIES, ReportedMetric, without_owner

if TYPE_CHECKING:
    from ostler.clock import Clock

AnyMetric: TypeAlias = "Metric[Any] | ReportedMetric"
M = TypeVar("M", bound=AnyMetric)
_log = logging.getLogger(__name__)
MAX_METRICS = 200
"""The most metrics of one service or driver."""
MAX_OWNER_SERIES = 20_000
"""The most combinations of labels that all metrics of one service or driver together may tell apart."""
_MAX_ENDED = 1000
"""Counters and histograms of services that are not running whose values are kept for their next start."""
_PART_SIZE = 500
"""Series after which whoever reads may do something else."""
Owner = tuple[str, ...]
"""The service, or the service and the driver."""


class MetricExporter(Protocol):
    """Also gets the metrics of managers and drivers, for another system. Any thread; must not block."""

    def add_family(self, declaration: Declaration, read: Callable[[], MetricFamily]) -> None:
        """Export a metric from now on; `read` returns its series of all owners, none when they are gone."""
        ...

    def observer(self, declaration: Declaration, labels: Mapping[str, str]) -> Callable[[float], None]:
        """Return what is called with each observation of a histogram."""
        ...


def _no_trace() -> str:
    return ""


class MetricRegistry:
    """The metrics of all services of a daemon, while they run. Any thread.

    Args:
        clock: The source of time.
        current_trace: See `MetricSetting`.
        exporter: Also gets all metrics; None for nobody.
    """

    def __init__(
        self, clock: Clock, current_trace: Callable[[], str] = _no_trace, exporter: MetricExporter | None = None
    ) -> None:
        self._clock = clock
        self._current_trace = current_trace
        self._exporter = exporter
        self._lock = threading.RLock()
        self._families: dict[str, dict[Owner, AnyMetric]] = {}
        self._ended: dict[tuple[str, Owner], tuple[Declaration, list[MetricSeries]]] = {}
        self._refused: set[tuple[Owner, str]] = set()

    def metrics_of(self, service: str, driver: str = "") -> Metrics:
        """Return that by which a manager, or a driver of a service, declares its metrics."""
        owner = (service, driver) if driver else (service,)
        name = f"driver {driver} of {service}" if driver else f"service {service}"
        return Metrics(self, owner, MetricSetting(name, self._clock, self._current_trace))

    def remove(self, service: str, driver: str = "") -> None:
        """Show the metrics of a service with its drivers, or of one driver, no longer.

        What was counted goes on when the same owner declares them again: counters go down only with the daemon. What
        still counts with them now is lost.
        """
        gone = (service, driver) if driver else (service,)
        with self._lock:
            for name, members in list(self._families.items()):
                for owner in [each for each in members if each[: len(gone)] == gone]:
                    self._keep_counts(name, owner, members.pop(owner))
                if not members:
                    del self._families[name]

    def _keep_counts(self, name: str, owner: Owner, metric: AnyMetric) -> None:
        if metric.declaration.kind == "gauge":
            return
        self._ended[name, owner] = metric.declaration, list(metric.read_series())
        while len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def take_report(self, owner: Owner, families: Sequence[MetricFamily], source: object) -> None:
        """Replace metrics of a driver that runs in a process of its own, in which they are counted.

        Args:
            owner: The driver.
            families: Those of its metrics that have changed.
            source: What tells the process from the one before, which has counted from 0 as well.

        Raises:
            ContractError: One of them could not have been declared.
        """
        for family in families[:MAX_METRICS]:
            own = without_owner(family, len(owner))
            reported = ReportedMetric(own)
            try:
                self.add(owner, reported.declaration, partial(_same, reported)).update(own, source)
            except ContractError as error:  # another owner has declared it differently
                if (owner, family.name) not in self._refused:
                    self._refused.add((owner, family.name))
                    _log.warning("%s (%s)", error.message, error.hint)

    def read(self) -> list[MetricFamily]:
        """Return all metrics with their values now, by name; `service` (and `driver`) are their first labels."""
        return [family for family in self.read_in_parts() if family is not None]

    def read_in_parts(self) -> Iterator[MetricFamily | None]:
        """Yield what `read` returns, one metric after the other, and None where the reader may do something else."""
        with self._lock:
            names = sorted(self._families)
        for name in names:
            family = yield from self._read_family(name)
            if family.help:  # without: its last owner has just gone
                yield family

    def add(self, owner: Owner, declaration: Declaration, make: Callable[[], M]) -> M:
        """Return the metric of an owner, created if it has none of that name.

        Raises:
            ContractError: Another one of that name is declared differently, or there are too many.
        """
        with self._lock:
            members = self._families.get(declaration.name, {})
            for other, metric in members.items():
                if len(other) != len(owner) or not metric.declaration.is_compatible(declaration):
                    raise _mismatch(declaration, "/".join(other), metric.declaration)
            if (found := members.get(owner)) is not None:
                return found  # type: ignore[return-value] # of the same kind, as was just compared
            self._check_room(owner, declaration)
            if (twin := _twin_of(declaration.name)) in self._families:
                raise ContractError(
                    f"metric {declaration.name} was refused: there is {twin}, and in OpenMetrics both have one name",
                    hint="choose names that differ by more than `_total`",
                )
            created = make()
            before, past = self._ended.pop((declaration.name, owner), (declaration, []))
            if before.is_compatible(declaration):
                created.resume(past)
            members[owner] = created
            self._families[declaration.name] = members
        if self._exporter is not None:
            self._exporter.add_family(declaration, partial(self._read_whole, declaration.name))
        return created

    def _check_room(self, owner: Owner, declaration: Declaration) -> None:
        own = [members[owner].declaration for members in self._families.values() if owner in members]
        if len(own) >= MAX_METRICS:
            raise ContractError(
                f"metric {declaration.name} was refused: {'/'.join(owner)} already has {MAX_METRICS}",
                hint="use labels for what differs from call to call",
            )
        if sum(map(series_limit, own)) + series_limit(declaration) > MAX_OWNER_SERIES:
            raise ContractError(
                f"metric {declaration.name} was refused: the metrics of {'/'.join(owner)} would have more than "
                f"{MAX_OWNER_SERIES} series together",
                hint="lower their `max_series`",
            )

    def make_observer(self, owner: Owner, declaration: Declaration, key: tuple[str, ...]) -> OnObserve:
        """Return what is called with each observation of a series of a histogram; None for nobody."""
        if self._exporter is None:
            return None
        labels = dict(zip(declaration.labels, key, strict=True)) | dict(zip(_OWNER_LABELS, owner, strict=False))
        return self._exporter.observer(declaration, labels)

    def _read_whole(self, name: str) -> MetricFamily:
        parts = self._read_family(name)
        while True:
            try:
                next(parts)
            except StopIteration as end:
                whole: MetricFamily = end.value
                return whole

    def _read_family(self, name: str) -> Generator[None, None, MetricFamily]:
        with self._lock:
            members = list(self._families.get(name, {}).items())
        if not members:
            return MetricFamily(name=name, kind="gauge", help="")
        series: list[MetricSeries] = []
        for owner, metric in members:
            for each in metric.read_series(owner):
                series.append(each)
                if not len(series) % _PART_SIZE:
                    yield
        owner, metric = members[0]
        _, kind, text, labels, bounds, unit, _ = metric.declaration
        return MetricFamily(
            name=name, kind=kind, help=text, unit=unit, labels=[*_OWNER_LABELS[: len(owner)], *labels],
            bounds=list(bounds), series=series,
        )  # fmt: skip


OnObserve = Callable[[float], None] | None
_OWNER_LABELS = ("service", "driver")


def _twin_of(name: str) -> str:
    """Return the name that is the same one without what OpenMetrics adds to counters."""
    return name.removesuffix("_total") if name.endswith("_total") else f"{name}_total"


def series_limit(declaration: Declaration) -> int:
    """Return how many series a metric can have."""
    return declaration.max_series if declaration.labels else 1


def _same(metric: ReportedMetric) -> ReportedMetric:
    return metric


def _mismatch(declaration: Declaration, other: str, known: Declaration) -> ContractError:
    return ContractError(
        f"metric {declaration.name} was refused: {other} has it as a {known.kind} with the labels "
        f"({', '.join(known.labels)})",
        hint="begin the name with that of the plugin, or declare it in the same way",
        metric=declaration.name,
    )


class Metrics:
    """Declares the metrics of one manager or driver; `self.metrics`. Any thread.

    A metric is declared once, in `__init__` or `init_host`, and used anywhere; declared again in the same way it is the
    same one. All have the label `service`, those of drivers `driver` as well; they end with the service.

        self.switched = self.metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["result"])
        self.switched.labels(result="done").inc()

    Args:
        registry: Where they are read.
        owner: The service, or the service and the driver.
        setting: See `MetricSetting`.
    """

    def __init__(self, registry: MetricRegistry, owner: Owner, setting: MetricSetting) -> None:
        self._registry = registry
        self._owner = owner
        self._setting = setting

    def counter(self, name: str, help: str, *, labels: Sequence[str] = (), max_series: int = 100) -> Counter:  # noqa: A002 - the word of Prometheus
        """Declare a number that only grows.

        Args:
            name: Its name, which begins with that of the plugin and ends with `_total`.
            help: What it counts, in a sentence.
            labels: The names of its labels.
            max_series: How many combinations of labels are told apart.

        Raises:
            ContractError: The declaration violates the conventions, or differs from that of another service.
        """
        declaration = self._declare("counter", name, help, labels, (), max_series)

        def make() -> Counter:
            return Counter(declaration, self._setting, lambda _key: CounterSeries())

        return self._registry.add(self._owner, declaration, make)

    def gauge(self, name: str, help: str, *, labels: Sequence[str] = (), max_series: int = 100) -> Gauge:  # noqa: A002 - the word of Prometheus
        """Declare a number that grows and shrinks; arguments and errors are those of `counter`."""
        declaration = self._declare("gauge", name, help, labels, (), max_series)

        def make() -> Gauge:
            return Gauge(declaration, self._setting, lambda _key: GaugeSeries())

        return self._registry.add(self._owner, declaration, make)

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002 - the word of Prometheus
        *,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        max_series: int = 100,
    ) -> Histogram:
        """Declare observations, such as durations in seconds, that are counted by buckets.

        Args:
            name: Its name, which ends with a base unit, such as `_seconds`.
            help: What is observed, in a sentence.
            labels: The names of its labels.
            buckets: The upper bounds of the buckets, ascending; by default for durations from 1 ms to a minute.
            max_series: How many combinations of labels are told apart.

        Raises:
            ContractError: See `counter`.
        """
        declaration = self._declare("histogram", name, help, labels, tuple(buckets), max_series)

        def make_series(key: tuple[str, ...]) -> HistogramSeries:
            on_observe = self._registry.make_observer(self._owner, declaration, key)
            return HistogramSeries(declaration.bounds, self._setting, on_observe)

        def make() -> Histogram:
            return Histogram(declaration, self._setting, make_series)

        return self._registry.add(self._owner, declaration, make)

    def take_report(self, families: Sequence[MetricFamily], source: object) -> None:
        """See `MetricRegistry.take_report`."""
        self._registry.take_report(self._owner, families, source)

    def _declare(
        self, kind: MetricKind, name: str, text: str, labels: Sequence[str], bounds: tuple[float, ...], max_series: int
    ) -> Declaration:
        check_declaration(kind, name, text, labels, bounds)
        if type(max_series) is not int or not 1 <= max_series <= MAX_SERIES:
            raise ContractError(
                f"metric {name} was refused: max_series is {max_series!r}", hint=f"use 1 to {MAX_SERIES}"
            )
        return Declaration(
            name, kind, text.strip(), tuple(labels), tuple(map(float, bounds)), unit_of(name), max_series
        )
