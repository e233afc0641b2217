"""The formats of Prometheus, as the parsers of its client library read them."""

from __future__ import annotations

import math

import pytest
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from ostler.metrics.families import Exemplar, MetricFamily, MetricSeries
from ostler.metrics.text_format import prometheus_text


def read_back(*families: MetricFamily, openmetrics: bool = False) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples by name and values of labels, as the strict parser of a format finds them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    parser = openmetrics_parser if openmetrics else text_parser
    for family in parser.text_string_to_metric_families(prometheus_text(families, openmetrics=openmetrics)):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


both = pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])


@both
def test_values_and_labels_come_back_as_they_were(openmetrics):
    values = ["plain", 'with "quotes"', "back\\slash", "two\nlines", "ünïcode", "", "\\n", '\\"', "{a=b}, # c", " "]
    series = [MetricSeries(labels=[value], value=number) for number, value in enumerate(values)]
    text = 'with "quotes" \\ and\nlines'
    family = MetricFamily(name="lamp_lit", kind="gauge", help=text, labels=["room"], series=series)
    found = read_back(family, openmetrics=openmetrics)["lamp_lit"]
    assert found == {(value,): number for number, value in enumerate(values)}


@both
def test_the_help_comes_back_as_it_was(openmetrics):
    text = 'with "quotes" \\ and\nlines'
    written = prometheus_text([MetricFamily(name="lamp_lit", kind="gauge", help=text)], openmetrics=openmetrics)
    parser = openmetrics_parser if openmetrics else text_parser
    (family,) = parser.text_string_to_metric_families(written)
    assert family.documentation == text


@both
@pytest.mark.parametrize("value", [0, 1, -1.5, 1e300, 2**60, 1e-9, math.inf, -math.inf, 1795955937.92359])
def test_numbers_come_back_as_they_were(value, openmetrics):
    family = MetricFamily(name="lamp_lit", kind="gauge", help="Lamps", series=[MetricSeries(value=value)])
    assert read_back(family, openmetrics=openmetrics)["lamp_lit"] == {(): value}


@both
def test_what_is_no_number_stays_so(openmetrics):
    family = MetricFamily(name="lamp_lit", kind="gauge", help="Lamps", series=[MetricSeries(value=math.nan)])
    assert math.isnan(read_back(family, openmetrics=openmetrics)["lamp_lit"][()])


@both
def test_the_buckets_of_a_histogram_add_up(openmetrics):
    series = [MetricSeries(labels=["hall"], value=12.5, counts=[1, 2, 3])]
    family = MetricFamily(
        name="lamp_seconds", kind="histogram", help="Time", labels=["room"], bounds=[0.1, 1], series=series
    )
    found = read_back(family, openmetrics=openmetrics)
    assert found["lamp_seconds_bucket"] == {("hall", "0.1"): 1, ("hall", "1.0"): 3, ("hall", "+Inf"): 6}
    assert (found["lamp_seconds_count"], found["lamp_seconds_sum"]) == ({("hall",): 6}, {("hall",): 12.5})


@both
def test_a_histogram_without_labels_is_valid_too(openmetrics):
    series = [MetricSeries(value=1, counts=[0, 1])]
    family = MetricFamily(name="lamp_seconds", kind="histogram", help="Time", unit="seconds", bounds=[5], series=series)
    assert read_back(family, openmetrics=openmetrics)["lamp_seconds_bucket"] == {("5.0",): 0, ("+Inf",): 1}


def test_openmetrics_has_units_examples_and_counters_by_their_base_name():
    exemplar = Exemplar(trace_id="ab" * 16, value=0.07, at=1795955937.5)
    series = [MetricSeries(value=0.07, counts=[1, 0], exemplars={0: exemplar})]
    read_bytes = [MetricSeries(value=3)]
    families = [
        MetricFamily(name="lamp_seconds", kind="histogram", help="Time", unit="seconds", bounds=[1], series=series),
        MetricFamily(name="lamp_read_bytes_total", kind="counter", help="B", unit="bytes", series=read_bytes),
    ]  # fmt: skip
    text = prometheus_text(families, openmetrics=True)
    seconds, read = openmetrics_parser.text_string_to_metric_families(text)
    assert (seconds.unit, read.unit, read.name) == ("seconds", "bytes", "lamp_read_bytes")
    found = seconds.samples[0].exemplar
    assert (found.labels, found.value, float(found.timestamp)) == ({"trace_id": "ab" * 16}, 0.07, 1795955937.5)
    assert "trace_id" not in prometheus_text(families)


@both
def test_a_metric_without_series_is_declared_all_the_same(openmetrics):
    text = prometheus_text(
        [MetricFamily(name="lamp_total", kind="counter", help="Lamps", labels=["room"])], openmetrics=openmetrics
    )
    assert text.startswith(f"# HELP lamp{'' if openmetrics else '_total'} Lamps\n")
    assert text.endswith("# EOF\n") == openmetrics
