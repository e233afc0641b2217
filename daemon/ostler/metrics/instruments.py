"""`Counter`, `Gauge` and `Histogram`: what a manager or driver counts with, on any thread."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ostler.bounds import safe_str
from ostler.errors import ContractError
from ostler.metrics.families import Exemplar, MetricKind, MetricSeries

if TYPE_CHECKING:
    from ostler.clock import Clock

_log = logging.getLogger(__name__)
OTHER = "other"
"""What all labels of the series are that counts for combinations beyond the limit."""
_LABEL_LIMIT = 128
"""Characters of the value of a label."""
_INFINITE = float("inf")
_SAMPLED = "01"
"""How a `traceparent` ends whose trace is kept."""
S = TypeVar("S", bound="Series")


class Declaration(NamedTuple):
    """What a metric is, without its values."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    unit: str = ""
    max_series: int = 100

    def is_compatible(self, other: Declaration) -> bool:
        """Return whether the series of both can be those of one metric."""
        return (self.kind, self.labels, self.bounds) == (other.kind, other.labels, other.bounds)


class MetricSetting(NamedTuple):
    """What the metrics of a service work with.

    Attributes:
        owner: Whose metrics they are, for messages: `service lamp`.
        clock: The source of time.
        current_trace: Returns the W3C trace of the current request, empty when there is none. Any thread.
    """

    owner: str
    clock: Clock
    current_trace: Callable[[], str]


class Series(ABC):
    """The value of one combination of labels. Any thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @abstractmethod
    def read(self, labels: list[str]) -> MetricSeries:
        """Return the value now."""

    def resume(self, past: MetricSeries) -> None:
        """Go on from what was counted before a restart; a value that can also shrink does not."""


class CounterSeries(Series):
    """A number that only grows."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        super().__init__()
        self._value = 0.0  # added to it, what is no float raises here, and not where metrics are read

    def inc(self, amount: float = 1) -> None:
        """Add an amount, 1 by default.

        Raises:
            ContractError: It is negative, infinite or not a number.
        """
        if not 0 <= amount < _INFINITE:
            raise ContractError(f"a counter cannot count {amount}", hint="use a gauge for what also shrinks")
        with self._lock:
            self._value += amount

    def read(self, labels: list[str]) -> MetricSeries:
        """See `Series.read`."""
        return MetricSeries(labels=labels, value=float(self._value))

    def resume(self, past: MetricSeries) -> None:
        """See `Series.resume`."""
        with self._lock:
            self._value += past.value


class GaugeSeries(Series):
    """A number that grows and shrinks."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        super().__init__()
        self._value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self._value = float(value)

    def inc(self, amount: float = 1) -> None:
        """Add an amount, 1 by default."""
        with self._lock:
            self._value += amount

    def dec(self, amount: float = 1) -> None:
        """Subtract an amount, 1 by default."""
        with self._lock:
            self._value -= amount

    def read(self, labels: list[str]) -> MetricSeries:
        """See `Series.read`."""
        return MetricSeries(labels=labels, value=float(self._value))


class HistogramSeries(Series):
    """Observations, counted by the bucket that they fall into.

    Args:
        bounds: The upper bounds of the buckets.
        setting: See `MetricSetting`.
        on_observe: Also called with each observation; None for nobody.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_on_observe", "_setting", "_sum")

    def __init__(
        self, bounds: tuple[float, ...], setting: MetricSetting, on_observe: Callable[[float], None] | None
    ) -> None:
        super().__init__()
        self._bounds, self._setting, self._on_observe = bounds, setting, on_observe
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count an observation; within a request that is traced, its trace becomes the example of its bucket.

        Raises:
            ContractError: It is not a number.
        """
        if value != value:  # noqa: PLR0124 - the quickest way to find what is not a number
            raise ContractError("a histogram cannot observe what is not a number", hint="leave such values out")
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._sum += value  # raises for what is no float
            self._counts[index] += 1
        if trace := self._setting.current_trace():
            self._keep_exemplar(index, value, trace)
        if self._on_observe is not None:
            self._on_observe(value)

    def _keep_exemplar(self, index: int, value: float, trace: str) -> None:
        if trace.endswith(_SAMPLED):
            wall = self._setting.clock.wall()
            self._exemplars[index] = Exemplar(trace_id=trace.split("-")[1], value=float(value), at=wall)

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe the seconds that the block takes, also when it raises."""
        monotonic = self._setting.clock.monotonic
        began = monotonic()
        try:
            yield
        finally:
            self.observe(monotonic() - began)

    def read(self, labels: list[str]) -> MetricSeries:
        """See `Series.read`."""
        with self._lock:
            counts, total = list(self._counts), float(self._sum)
        return MetricSeries(labels=labels, value=total, counts=counts, exemplars=dict(self._exemplars))

    def resume(self, past: MetricSeries) -> None:
        """See `Series.resume`."""
        with self._lock:
            self._counts = [before + count for before, count in zip(past.counts, self._counts, strict=True)]
            self._sum += past.value
            self._exemplars = {**past.exemplars, **self._exemplars}


class Metric(Generic[S]):
    """A metric of one service or driver, with its series. Any thread.

    Args:
        declaration: What it is.
        setting: See `MetricSetting`.
        make_series: Creates the series of a combination of labels.
    """

    def __init__(
        self, declaration: Declaration, setting: MetricSetting, make_series: Callable[[tuple[str, ...]], S]
    ) -> None:
        self.declaration = declaration
        self._setting = setting
        self._make_series = make_series
        self._names = declaration.labels
        self._series: dict[tuple[str, ...], S] = {}
        self._lock = threading.Lock()
        self._has_warned = False
        if not self._names:
            self._series[()] = make_series(())

    def labels(self, **values: object) -> S:
        """Return the series of a combination of labels; keep it where it is used often.

        Beyond `max_series` combinations it is one that counts for all others, with `other` for each label.

        Args:
            values: The value of each label, as text.

        Raises:
            ContractError: They are not the labels that were declared.
        """
        try:
            if len(values) == len(self._names):
                return self._series[tuple([values[name] for name in self._names])]  # type: ignore[misc]
        except (KeyError, TypeError):  # a new combination, another label, or values that are not texts
            pass
        return self._add_series(values)

    def _add_series(self, values: dict[str, object]) -> S:
        if values.keys() != set(self._names):
            raise ContractError(
                f"metric {self.declaration.name} has the labels ({', '.join(self._names)}), "
                f"({', '.join(values)}) were given",
                hint="give each of them by name",
            )
        return self._series_of(tuple(safe_str(values[name], _LABEL_LIMIT) for name in self._names))

    def _series_of(self, key: tuple[str, ...]) -> S:
        with self._lock:
            if (found := self._series.get(key)) is not None:
                return found
            if len(self._series) >= self.declaration.max_series:
                self._warn_once(key)
                key = (OTHER,) * len(self._names)
            if (found := self._series.get(key)) is None:
                found = self._series[key] = self._make_series(key)
            return found

    def _warn_once(self, key: tuple[str, ...]) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        named = ", ".join(f"{name}={value!r}" for name, value in zip(self._names, key, strict=True))
        _log.warning(
            "metric %s of %s has more than %d combinations of labels: %s and all further ones are counted as %r",
            self.declaration.name, self._setting.owner, self.declaration.max_series, named, OTHER,
        )  # fmt: skip

    def remove(self, **values: object) -> None:
        """Forget the series of a combination of labels, because what it is about is gone."""
        with self._lock:
            self._series.pop(tuple(safe_str(values.get(name), _LABEL_LIMIT) for name in self._names), None)
            if not self._names:
                self._series[()] = self._make_series(())

    def read_series(self, owner: tuple[str, ...] = ()) -> Iterator[MetricSeries]:
        """Yield the value of each series now; `owner` comes before its labels."""
        with self._lock:
            series = list(self._series.items())
        for key, each in series:
            yield each.read([*owner, *key])

    def resume(self, past: Iterable[MetricSeries]) -> None:
        """Go on from what the series had counted before a restart."""
        for series in past:
            self._series_of(tuple(series.labels)).resume(series)

    def _only(self) -> S:
        try:
            return self._series[()]
        except KeyError:
            raise ContractError(
                f"metric {self.declaration.name} has the labels ({', '.join(self._names)})",
                hint="choose its series first, with `labels(…)`",
            ) from None


class Counter(Metric[CounterSeries]):
    """A number that only grows: `self.metrics.counter(…)`."""

    def inc(self, amount: float = 1) -> None:
        """Add an amount to a counter without labels; see `CounterSeries.inc`."""
        self._only().inc(amount)


class Gauge(Metric[GaugeSeries]):
    """A number that grows and shrinks: `self.metrics.gauge(…)`."""

    def set(self, value: float) -> None:
        """Replace the value of a gauge without labels."""
        self._only().set(value)

    def inc(self, amount: float = 1) -> None:
        """Add an amount to a gauge without labels."""
        self._only().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract an amount from a gauge without labels."""
        self._only().dec(amount)


class Histogram(Metric[HistogramSeries]):
    """Observations by buckets: `self.metrics.histogram(…)`."""

    def observe(self, value: float) -> None:
        """Count an observation of a histogram without labels; see `HistogramSeries.observe`."""
        self._only().observe(value)

    def time(self) -> Any:
        """Return a context manager that observes the seconds of its block, of a histogram without labels."""
        return self._only().time()
