"""The text format, as the client library of Prometheus reads it."""

from __future__ import annotations

import math

import pytest

from ostler.metrics.families import MetricFamily, MetricSeries
from ostler.metrics.text_format import prometheus_text

parser = pytest.importorskip("prometheus_client.parser")


def read_back(*families: MetricFamily) -> dict[str, dict[tuple[str, ...], float]]:
    found = {}
    for family in parser.text_string_to_metric_families(prometheus_text(families)):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_values_and_labels_come_back_as_they_were():
    values = ["plain", 'with "quotes"', "back\\slash", "two\nlines", "ünïcode", ""]
    series = [MetricSeries(labels=[value], value=number) for number, value in enumerate(values)]
    family = MetricFamily(
        name="lamp_lit", kind="gauge", help='with "quotes" \\ and\nlines', labels=["room"], series=series
    )
    assert read_back(family)["lamp_lit"] == {(value,): number for number, value in enumerate(values)}


@pytest.mark.parametrize("value", [0, 1, -1.5, 1e300, 2**60, 1e-9, math.inf, -math.inf, 1795955937.92359])
def test_numbers_come_back_as_they_were(value):
    family = MetricFamily(name="lamp_lit", kind="gauge", help="Lamps", series=[MetricSeries(value=value)])
    assert read_back(family)["lamp_lit"] == {(): value}


def test_the_buckets_of_a_histogram_add_up():
    series = MetricSeries(labels=["hall"], value=12.5, counts=[1, 2, 3])
    family = MetricFamily(
        name="lamp_seconds", kind="histogram", help="Time", labels=["room"], bounds=[0.1, 1], series=[series]
    )
    found = read_back(family)
    assert found["lamp_seconds_bucket"] == {("hall", "0.1"): 1, ("hall", "1.0"): 3, ("hall", "+Inf"): 6}
    assert (found["lamp_seconds_count"], found["lamp_seconds_sum"]) == ({("hall",): 6}, {("hall",): 12.5})


def test_a_metric_without_series_is_declared_all_the_same():
    text = prometheus_text([MetricFamily(name="lamp_total", kind="counter", help="Lamps", labels=["room"])])
    assert text == "# HELP lamp_total Lamps\n# TYPE lamp_total counter\n"
