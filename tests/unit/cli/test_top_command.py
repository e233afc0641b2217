"""`ostler top`: pictures from two answers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ostler.cli.commands.top import traffic_snapshot
from ostler.types import MethodTraffic, TopicTraffic, TrafficCounters

# Bucket 39 ends at 2^10 microseconds, bucket 79 at 2^20.
FAST, SLOW = 39, 79


def traffic(at: float, *methods: MethodTraffic, **values: Any) -> TrafficCounters:
    topic = TopicTraffic(topic="lamp", methods=list(methods), queued=3, in_flight=2)
    return TrafficCounters(at=at, host="node1", topics=[topic], clients=4, **values)


def test_a_picture_holds_what_happened_between_and_nothing_before() -> None:
    before = traffic(10.0, MethodTraffic(method="on", requests=1000, errors=5, buckets={SLOW: 1000}), published=7)
    now = traffic(
        12.0,
        MethodTraffic(method="on", requests=1100, errors=7, refused=4, in_flight=2, buckets={SLOW: 1001, FAST: 99}),
        published=9, garbage={"empty": 2},
    )  # fmt: skip
    found = traffic_snapshot(before, now)
    (line,) = found.methods
    assert (line.method, line.rate, line.refused, line.errors, line.in_flight) == ("lamp.on", 50.0, 2.0, 1.0, 2)
    assert line.p50 == pytest.approx(2**10 / 1e6)
    assert line.p99 == pytest.approx(2**10 / 1e6)
    assert (found.rate, found.events, found.queued, found.garbage) == (50.0, 1.0, {"lamp": 3}, {"empty": 2})


def test_a_service_that_was_restarted_meanwhile_is_counted_from_nothing() -> None:
    before = traffic(0.0, MethodTraffic(method="on", requests=1000, buckets={SLOW: 1000}))
    now = traffic(1.0, MethodTraffic(method="on", requests=10, buckets={FAST: 10}))
    (line,) = traffic_snapshot(before, now).methods
    assert (line.rate, line.p99) == (10.0, pytest.approx(2**10 / 1e6))


def test_what_nothing_happens_to_is_left_out_unless_it_is_wanted() -> None:
    same = traffic(0.0, MethodTraffic(method="on", requests=5, buckets={FAST: 5}))
    assert traffic_snapshot(same, traffic(1.0, *same.topics[0].methods)).methods == []
    (line,) = traffic_snapshot(same, traffic(1.0, *same.topics[0].methods), include_idle=True).methods
    assert (line.rate, line.p50) == (0.0, None)


@pytest.mark.parametrize(("sort", "first"), [("rate", "lamp.b"), ("p99", "lamp.a"), ("method", "lamp.a")])
def test_lines_are_sorted_as_asked(sort: str, first: str) -> None:
    now = traffic(
        1.0,
        MethodTraffic(method="a", requests=1, buckets={SLOW: 1}),
        MethodTraffic(method="b", requests=9, buckets={FAST: 9}),
    )
    assert traffic_snapshot(traffic(0.0), now, sort).methods[0].method == first


def test_a_pipe_gets_one_table_for_each_interval(ostler: Any, client: Any) -> None:
    counts = itertools.count(1)

    def answer() -> TrafficCounters:
        number = next(counts)
        return traffic(float(number), MethodTraffic(method="on", requests=10 * number, buckets={FAST: 10 * number}))

    client.answers["ostler", "traffic"] = answer
    found = ostler("top", "--interval", "0.1", "--count", "2").out
    assert found.count("METHOD") == 2
    assert found.splitlines()[:3] == [
        "node1: 10.0 calls/s, 2 in flight, 4 clients waiting, 0.0 events/s; queued lamp 3",
        "METHOD   CALLS/S  P50  P99  IN FLIGHT  REFUSED/S  ERRORS/S",
        "lamp.on     10.0  1ms  1ms          0        0.0       0.0",
    ]
    pictures = [
        json.loads(line) for line in ostler("--json", "top", "--interval", "0.1", "--count", "2").out.splitlines()
    ]
    assert [each["methods"][0]["rate"] for each in pictures] == [10.0, 10.0]


def test_an_order_that_there_is_not_is_a_mistake(ostler: Any) -> None:
    assert ostler("top", "--sort", "size").code == 2
    assert ostler("top", "--sort", "requests").code == 2
