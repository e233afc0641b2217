"""The metrics of managers and drivers as an SDK of OpenTelemetry collects them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ostler.metrics.opentelemetry import OtelMetrics
from ostler.metrics.registry import MetricRegistry
from ostler.testing import FakeClock


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def registry(reader):
    return MetricRegistry(FakeClock(), exporter=OtelMetrics(MeterProvider([reader], shutdown_on_exit=False)))


def collected(reader) -> dict[str, list]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    metrics = [each for r in data.resource_metrics for scope in r.scope_metrics for each in scope.metrics]
    return {each.name: [each.unit, *each.data.data_points] for each in metrics}


def test_counters_and_gauges_are_read_when_the_sdk_collects(reader, registry):
    for topic in ("gold", "silver"):
        metrics = registry.metrics_of(topic)
        metrics.counter("lamp_read_bytes_total", "Bytes", labels=["room"]).labels(room="hall").inc(3)
        metrics.gauge("lamp_lit", "Lamps that are lit").set(2)
    found = collected(reader)
    unit, *points = found["lamp_read_bytes_total"]
    assert unit == "By"
    assert {(point.attributes["service"], point.attributes["room"]): point.value for point in points} == {
        ("gold", "hall"): 3, ("silver", "hall"): 3,
    }  # fmt: skip
    assert {point.value for point in found["lamp_lit"][1:]} == {2}


def test_observations_are_recorded_with_the_buckets_that_were_declared(reader, registry):
    warm_up = registry.metrics_of("lamp", "desk").histogram(
        "gpio_switch_seconds", "Time", labels=["to"], buckets=[1, 5]
    )
    for seconds in (0.5, 2, 9):
        warm_up.labels(to="on").observe(seconds)
    unit, point = collected(reader)["gpio_switch_seconds"]
    assert (unit, list(point.bucket_counts), list(point.explicit_bounds)) == ("s", [1, 1, 1], [1, 5])
    assert dict(point.attributes) == {"service": "lamp", "driver": "desk", "to": "on"}


def test_a_service_that_is_gone_has_no_values_and_goes_on_with_those_it_had(reader, registry):
    registry.metrics_of("lamp").counter("lamp_switched_total", "Switches").inc(5)
    registry.remove("lamp")
    assert "lamp_switched_total" not in collected(reader)
    registry.metrics_of("lamp").counter("lamp_switched_total", "Switches").inc(1)
    _, point = collected(reader)["lamp_switched_total"]
    assert point.value == 6, "a sum that only grows must not go down"
