"""Counters that go on when what counts them is replaced."""

from __future__ import annotations

import gc

from ostler.daemon.control.metrics.counter_history import CounterHistory
from ostler.daemon.control.metrics.family_builder import FamilyBuilder
from ostler.messaging.rpc.endpoint import MethodStats
from ostler.metrics.families import MetricSeries

NAME = "ostler_connections_refused_total"


class Source:
    """What counts."""


def counted(history, value, source=None, labels=("lamp",)):
    return history.add_past(NAME, MetricSeries(labels=list(labels), value=value), source).value


def test_a_counter_that_begins_again_goes_on_from_where_it_was():
    history = CounterHistory()
    assert [counted(history, value) for value in (3, 5, 0, 2, 2, 1)] == [3, 5, 5, 7, 7, 8]
    assert counted(history, 1, labels=("fan",)) == 1


def test_another_source_has_begun_at_0_even_if_it_has_counted_more():
    history, first, second = CounterHistory(), Source(), Source()
    assert [counted(history, 3, first), counted(history, 4, first), counted(history, 9, second)] == [3, 4, 13]
    del second
    gc.collect()
    assert counted(history, 1, Source()) == 14


def test_requests_of_a_service_that_was_started_again_stay_in_their_buckets():
    history = CounterHistory()
    for seconds in (0.1, 100.0):
        stats, source = MethodStats(), Source()
        stats.record_latency(seconds)
        for _ in range(2):
            found = FamilyBuilder(history)
            found.source = source
            found.add_latency("ostler_request_duration_seconds", stats, "lamp", "switch")
            (family,) = found.families()
    (series,) = family.series
    assert series.value == 100.1
    assert [count for count in series.counts if count] == [1, 1]


def test_gauges_do_not_go_on():
    history = CounterHistory()
    for value in (5, 2):
        found = FamilyBuilder(history)
        found.add("ostler_requests_in_flight", value, "lamp")
        (family,) = found.families()
    assert family.series[0].value == 2
