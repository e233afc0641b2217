"""The series of the daemon's metrics: buckets of requests, states, names beyond the limit; and the catalogue itself."""

from __future__ import annotations

import re

import pytest

from ostler.daemon.control.metrics.catalogue import CATALOGUE, LATENCY_BOUNDS
from ostler.daemon.control.metrics.counter_history import CounterHistory
from ostler.daemon.control.metrics.family_builder import FamilyBuilder
from ostler.messaging.rpc.endpoint import MethodStats
from ostler.metrics.families import MetricFamily

LATENCY = "ostler_request_duration_seconds"


def only(found: FamilyBuilder) -> MetricFamily:
    (family,) = found.families()
    return family


@pytest.mark.parametrize("bound", LATENCY_BOUNDS)
def test_requests_are_in_the_bucket_of_prometheus_in_which_they_are(bound):
    stats = MethodStats()
    stats.record_latency(bound * 0.9)
    stats.record_latency(bound * 1.1)
    found = FamilyBuilder(CounterHistory())
    found.add_latency(LATENCY, stats, "lamp", "switch")
    (series,) = only(found).series
    below = LATENCY_BOUNDS.index(bound)
    assert [index for index, count in enumerate(series.counts) if count] == [below, below + 1]
    assert series.value == pytest.approx(2 * bound)


def test_the_quickest_and_the_slowest_requests_are_counted_too():
    stats = MethodStats()
    for seconds in (0.0, 1e-9, 1e6, 1e12):
        stats.record_latency(seconds)
    found = FamilyBuilder(CounterHistory())
    found.add_latency(LATENCY, stats, "lamp", "switch")
    counts = only(found).series[0].counts
    assert (counts[0], counts[-1], sum(counts)) == (2, 2, 4)


def test_a_traced_request_is_the_example_of_its_bucket_if_its_trace_is_sampled():
    stats = MethodStats()
    for seconds, flags in ((0.3, "01"), (0.31, "00"), (0.0001, "01"), (100.0, "01")):
        stats.record_latency(seconds)
        stats.record_trace(seconds, f"00-{'ab' * 16}-{'cd' * 8}-{flags}", 1000.0)
    found = FamilyBuilder(CounterHistory())
    found.add_latency(LATENCY, stats, "lamp", "switch")
    series = only(found).series[0]
    assert sorted(each.value for each in series.exemplars.values()) == [0.0001, 0.3, 100.0]
    for index, exemplar in series.exemplars.items():
        assert series.counts[index]
        assert exemplar.trace_id == "ab" * 16


def test_one_state_is_1_and_the_others_are_0():
    found = FamilyBuilder(CounterHistory())
    found.add_state("ostler_service_state", "up", ["starting", "up"], "lamp")
    assert [(each.labels, each.value) for each in only(found).series] == [
        (["lamp", "starting"], 0), (["lamp", "up"], 1),
    ]  # fmt: skip


def test_names_beyond_the_limit_are_one_and_those_that_are_told_apart_stay_so():
    counts = {f"Error{number}": 1 for number in range(60)}
    for extra in (0, 40):
        found = FamilyBuilder(CounterHistory())
        found.add_counts("ostler_errors_total", counts | {f"Late{number}": 1 for number in range(extra)}, "lamp")
        series = only(found).series
        assert [each.labels[1] for each in series[:50]] == [f"Error{number}" for number in range(50)]
        assert (series[50].labels[1], series[50].value) == ("other", 10 + extra)


def test_truth_is_a_number():
    found = FamilyBuilder(CounterHistory())
    found.add("ostler_store_available", True)
    assert type(only(found).series[0].value) is float


@pytest.mark.parametrize("declared", CATALOGUE.values(), ids=CATALOGUE)
def test_each_declaration_follows_the_conventions(declared):
    assert re.fullmatch(r"(ostler|process)(_[a-z]+)+", declared.name)
    assert (declared.kind == "counter") == declared.name.endswith("_total")
    assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent|count|sum|bucket)(_total)?$", declared.name)
    assert f"{declared.name}_total" not in CATALOGUE, "OpenMetrics calls both the same"
    assert not {"le", "quantile", "job", "instance"} & set(declared.labels)
    assert declared.help[0].isupper() or declared.help[0].isdigit()
    assert not declared.help.endswith(".")
