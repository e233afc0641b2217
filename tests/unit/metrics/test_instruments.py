"""Counters, gauges and histograms: values, labels, limits, threads."""

from __future__ import annotations

import logging
import math
import threading
import timeit
from contextlib import suppress
from decimal import Decimal

import pytest

from ostler.errors import ContractError
from ostler.metrics.registry import MetricRegistry
from ostler.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def registry(clock):
    return MetricRegistry(clock)


@pytest.fixture
def metrics(registry):
    return registry.metrics_of("lamp")


def values(metric) -> dict[tuple[str, ...], float]:
    return {tuple(each.labels): each.value for each in metric.read_series()}


def test_a_counter_counts_from_zero_in_whole_and_other_amounts(metrics):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched")
    assert values(switched) == {(): 0}
    switched.inc()
    switched.inc(2.5)
    assert values(switched) == {(): 3.5}


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, -math.inf])
def test_a_counter_refuses_what_would_make_it_shrink_or_no_number(metrics, amount):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched")
    with pytest.raises(ContractError, match="cannot count"):
        switched.inc(amount)
    assert values(switched) == {(): 0}


@pytest.mark.parametrize("amount", ["1", None, Decimal(1), 10**400])
def test_what_is_no_float_is_an_error_where_it_is_counted_and_changes_nothing(metrics, amount):
    counts = [
        (metrics.counter("lamp_switched_total", "Switches"), "inc"),
        (metrics.gauge("lamp_lit", "Lamps that are lit"), "inc"),
        (metrics.histogram("lamp_warm_up_seconds", "Time", buckets=[1]), "observe"),
    ]
    for metric, method in counts:
        with pytest.raises((TypeError, OverflowError, ContractError)):
            getattr(metric, method)(amount)
        (series,) = metric.read_series()
        assert (series.value, sum(series.counts)) == (0, 0)


class Number(float):
    """A float whose class is not known to those who read metrics, as those of numpy."""

    def __radd__(self, other: float) -> Number:
        return Number(other + float(self))


def test_values_are_plain_numbers_whatever_is_counted(metrics, registry):
    metrics.counter("lamp_switched_total", "Switches").inc(Number(2))
    metrics.gauge("lamp_lit", "Lamps that are lit").inc(Number(2))
    metrics.histogram("lamp_warm_up_seconds", "Time", buckets=[1]).observe(Number(2))
    for family in registry.read():
        assert type(family.series[0].value) is float
        assert family.series[0].value == 2


def test_a_gauge_is_set_and_moved(metrics):
    lit = metrics.gauge("lamp_lit", "Lamps that are lit")
    lit.set(3)
    lit.inc()
    lit.dec(2)
    assert values(lit) == {(): 2}


def test_observations_are_counted_by_bucket_bounds_included(metrics):
    warm_up = metrics.histogram("lamp_warm_up_seconds", "Time to full light", buckets=[0.1, 1, 10])
    for seconds in (0.05, 0.1, 0.5, 10, 11):
        warm_up.observe(seconds)
    (series,) = warm_up.read_series()
    assert series.counts == [2, 1, 1, 1]
    assert series.value == pytest.approx(21.65)


def test_what_is_no_number_is_not_observed(metrics):
    warm_up = metrics.histogram("lamp_warm_up_seconds", "Time to full light", buckets=[1])
    with pytest.raises(ContractError, match="not a number"):
        warm_up.observe(math.nan)
    assert next(warm_up.read_series()).counts == [0, 0]


def test_the_time_of_a_block_is_observed_even_if_it_raises(metrics, clock):
    warm_up = metrics.histogram("lamp_warm_up_seconds", "Time to full light", buckets=[1, 5])
    with suppress(OSError), warm_up.time():
        clock.advance(2)
        raise OSError("no light")
    (series,) = warm_up.read_series()
    assert (series.counts, series.value) == ([0, 1, 0], 2)


def test_each_combination_of_labels_has_its_own_value(metrics):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room", "result"])
    switched.labels(room="hall", result="done").inc()
    switched.labels(result="done", room="hall").inc()
    switched.labels(room="hall", result="failed").inc()
    assert values(switched) == {("hall", "done"): 2, ("hall", "failed"): 1}


def test_label_values_are_texts_of_a_bounded_length_whatever_is_given(metrics):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])
    for value in (7, "7", [1], "x" * 1000, "\udcff"):
        switched.labels(room=value).inc()
    found = values(switched)
    assert found[("7",)] == 2
    assert max(len(label) for (label,) in found) < 200
    assert all(label.isprintable() for (label,) in found)


@pytest.mark.parametrize("labels", [{}, {"roomm": "hall"}, {"room": "hall", "result": "done"}])
def test_other_labels_than_declared_are_an_error_that_names_them(metrics, labels):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])
    with pytest.raises(ContractError, match=r"has the labels \(room\)"):
        switched.labels(**labels)
    with pytest.raises(ContractError, match=r"has the labels \(room\)"):
        switched.inc()


def test_combinations_beyond_the_limit_count_as_other_and_are_logged_once(metrics, caplog):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"], max_series=2)
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            switched.labels(room=f"room {number}").inc()
    assert values(switched) == {("room 0",): 1, ("room 1",): 1, ("other",): 48}
    (record,) = caplog.records
    assert "service lamp" in record.getMessage()
    assert "room='room 2'" in record.getMessage()


def test_a_removed_combination_is_gone_and_makes_room(metrics):
    lit = metrics.gauge("lamp_lit", "Lamps that are lit", labels=["room"], max_series=1)
    lit.labels(room="hall").set(1)
    lit.remove(room="hall")
    lit.remove(room="never there")
    lit.labels(room="attic").set(1)
    assert values(lit) == {("attic",): 1}


def test_many_threads_lose_no_increment(metrics):
    switched = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])
    warm_up = metrics.histogram("lamp_warm_up_seconds", "Time to full light")
    threads = [threading.Thread(target=count, args=(switched, warm_up)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(switched) == {("hall",): 16_000}
    assert sum(next(warm_up.read_series()).counts) == 16_000


def count(switched, warm_up) -> None:
    for _ in range(2000):
        switched.labels(room="hall").inc()
        warm_up.observe(0.3)


def test_an_observation_in_a_sampled_trace_is_the_example_of_its_bucket(clock):
    traces = iter(["", f"00-{'4b' * 16}-00f067aa0ba902b7-00", f"00-{'1b' * 16}-00f067aa0ba902b7-01"])
    metrics = MetricRegistry(clock, lambda: next(traces)).metrics_of("lamp")
    warm_up = metrics.histogram("lamp_warm_up_seconds", "Time to full light", buckets=[1])
    for seconds in (0.5, 0.6, 0.7):
        warm_up.observe(seconds)
    examples = next(warm_up.read_series()).exemplars
    assert list(examples) == [0]
    assert (examples[0].trace_id, examples[0].value) == ("1b" * 16, 0.7)


def test_an_increment_takes_about_a_microsecond_at_most(metrics):
    counter = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])
    series = counter.labels(room="hall")
    best = min(timeit.repeat(series.inc, number=10_000, repeat=20)) / 10_000
    assert best < 2e-6, "a busy machine takes twice as long"
    best = min(timeit.repeat(lambda: counter.labels(room="hall").inc(), number=10_000, repeat=20)) / 10_000
    assert best < 3e-6
