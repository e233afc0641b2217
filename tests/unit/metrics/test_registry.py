"""Declarations that are refused, and the metrics of several owners."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest

from ostler.errors import ContractError
from ostler.metrics.families import MetricFamily, MetricSeries
from ostler.metrics.registry import MAX_METRICS, MetricRegistry
from ostler.testing import FakeClock


@pytest.fixture
def registry():
    return MetricRegistry(FakeClock())


@pytest.fixture
def metrics(registry):
    return registry.metrics_of("lamp")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lamp_switched", "call it lamp_switched_total"),
        ("Lamp_total", "lower case"),
        ("lamp__switched_total", "single `_`"),
        ("lamp-switched-total", "lower case"),
        ("ostler_lamp_total", "begin it with the plugin's name"),
        ("lamp_time_ms_total", "measure in seconds"),
        ("lamp_read_megabytes_total", "measure in bytes"),
        ("l" * 300 + "_total", "lower case"),
        ("", "lower case"),
    ],
)
def test_names_against_the_conventions_are_refused_with_advice(metrics, name, advice):
    with pytest.raises(ContractError) as caught:
        metrics.counter(name, "Something")
    assert advice in caught.value.hint


@pytest.mark.parametrize("name", ["lamp_lit_total", "lamp_lit_count", "lamp_lit_sum", "lamp_usage_percent"])
def test_names_that_mean_something_else_are_refused_for_a_gauge(metrics, name):
    with pytest.raises(ContractError):
        metrics.gauge(name, "Something")


@pytest.mark.parametrize(
    "labels",
    [
        ["le"],
        ["service"],
        ["driver"],
        ["instance"],
        ["Room"],
        ["__name"],
        ["room", "room"],
        [f"l{n}" for n in range(9)],
    ],
)
def test_labels_that_clash_or_are_not_valid_are_refused(metrics, labels):
    with pytest.raises(ContractError):
        metrics.gauge("lamp_lit", "Lamps that are lit", labels=labels)


@pytest.mark.parametrize("buckets", [[], [2, 1], [1, 1], [float("inf")], [float("nan")], list(range(51))])
def test_buckets_that_do_not_ascend_or_are_too_many_are_refused(metrics, buckets):
    with pytest.raises(ContractError, match="buckets"):
        metrics.histogram("lamp_warm_up_seconds", "Time to full light", buckets=buckets)


def test_a_metric_without_help_or_with_an_odd_limit_is_refused(metrics):
    with pytest.raises(ContractError, match="help"):
        metrics.gauge("lamp_lit", " ")
    with pytest.raises(ContractError, match="max_series"):
        metrics.gauge("lamp_lit", "Lamps that are lit", max_series=0)


class Text(str):
    """A text whose class is not known to those who read metrics."""

    __slots__ = ()


@pytest.mark.parametrize(
    "declaration",
    [
        {"name": 5}, {"name": Text("lamp_lit")}, {"help": 5}, {"help": "not \udc80 UTF-8"}, {"help": "two\nlines"},
        {"help": Text("Lamps")}, {"help": "x" * 1001}, {"labels": "room"}, {"labels": [5]}, {"labels": [Text("room")]},
        {"max_series": True}, {"max_series": 1.5}, {"max_series": 10_001},
    ],
    ids=str,
)  # fmt: skip
def test_a_declaration_of_other_types_is_refused_before_somebody_reads(metrics, declaration):
    with pytest.raises(ContractError):
        metrics.gauge(**{"name": "lamp_lit", "help": "Lamps that are lit", **declaration})


@pytest.mark.parametrize("bound", ["1", None, Decimal(1), 10**400, True])
def test_buckets_are_numbers(metrics, bound):
    with pytest.raises(ContractError, match="buckets are not valid"):
        metrics.histogram("lamp_warm_up_seconds", "Time", buckets=[bound])


def test_the_same_declaration_is_the_same_metric_and_another_one_an_error(metrics):
    first = metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["room"])
    assert metrics.counter("lamp_switched_total", "In other words", labels=["room"]) is first
    with pytest.raises(ContractError, match="lamp has it as a counter"):
        metrics.counter("lamp_switched_total", "Lamps that were switched", labels=["floor"])


@pytest.mark.parametrize("counter_first", [True, False])
def test_a_counter_and_a_gauge_that_openmetrics_calls_the_same_are_refused(registry, metrics, counter_first):
    makers = [
        lambda: metrics.counter("lamp_switched_total", "Switches"),
        lambda: registry.metrics_of("fan").gauge("lamp_switched", "Switched"),
    ]
    first, second = makers if counter_first else makers[::-1]
    first()
    with pytest.raises(ContractError, match="in OpenMetrics both have one name"):
        second()


def test_services_of_one_manager_share_a_metric_by_the_label_service(registry):
    for topic, count in (("gold", 1), ("silver", 2)):
        registry.metrics_of(topic).counter("lamp_switched_total", "Lamps", labels=["room"]).labels(room="a").inc(count)
    (family,) = registry.read()
    assert family.labels == ["service", "room"]
    assert {tuple(each.labels): each.value for each in family.series} == {("gold", "a"): 1, ("silver", "a"): 2}


def test_a_driver_has_its_name_as_a_label_and_cannot_share_with_a_manager(registry):
    registry.metrics_of("lamp", "desk").gauge("gpio_lines", "Lines in use").set(4)
    (family,) = registry.read()
    assert (family.labels, family.series[0].labels) == (["service", "driver"], ["lamp", "desk"])
    with pytest.raises(ContractError, match="lamp/desk has it"):
        registry.metrics_of("lamp").gauge("gpio_lines", "Lines in use")


def test_the_unit_is_read_off_the_name(metrics, registry):
    metrics.histogram("lamp_warm_up_seconds", "Time to full light")
    metrics.counter("lamp_read_bytes_total", "Bytes")
    metrics.gauge("lamp_lit", "Lamps that are lit")
    assert {each.name: each.unit for each in registry.read()} == {
        "lamp_warm_up_seconds": "seconds", "lamp_read_bytes_total": "bytes", "lamp_lit": "",
    }  # fmt: skip


def test_metrics_go_with_their_service_and_with_their_driver(registry):
    for driver in ("", "desk", "floor"):
        registry.metrics_of("lamp", driver).gauge(f"{driver or 'lamp'}_lit", "Lamps that are lit")
    registry.metrics_of("other").gauge("other_lit", "Lamps that are lit")
    registry.remove("lamp", "desk")
    assert [each.name for each in registry.read()] == ["floor_lit", "lamp_lit", "other_lit"]
    registry.remove("lamp")
    assert [each.name for each in registry.read()] == ["other_lit"]


def test_a_service_cannot_have_any_number_of_metrics(metrics):
    for number in range(MAX_METRICS):
        metrics.gauge(f"lamp_lit_{number}", "Lamps that are lit")
    with pytest.raises(ContractError, match="already has 200"):
        metrics.gauge("lamp_lit", "Lamps that are lit")


def test_a_service_cannot_have_any_number_of_series(metrics):
    for number in range(2):
        metrics.gauge(f"lamp_lit_{number}", "Lamps that are lit", labels=["room"], max_series=10_000)
    with pytest.raises(ContractError, match="more than 20000 series together"):
        metrics.gauge("lamp_lit", "Lamps that are lit")


def values(registry, name):
    (family,) = [each for each in registry.read() if each.name == name]
    return {tuple(each.labels): each.value for each in family.series}


def declare(metrics):
    """Declare one metric of each kind, and count with each."""
    switched = metrics.counter("lamp_switched_total", "Switches", labels=["room"])
    switched.labels(room="hall").inc(2)
    metrics.gauge("lamp_lit", "Lamps that are lit").inc(2)
    metrics.histogram("lamp_warm_up_seconds", "Time", buckets=[1]).observe(0.5)
    return switched


def test_what_was_counted_goes_on_when_a_service_or_driver_is_started_again(registry):
    for owner in (("lamp",), ("fan", "desk")):
        for _ in range(3):
            registry.remove(*owner)
            assert registry.read() == []
            declare(registry.metrics_of(*owner)).labels(room=f"{owner}").inc()
        assert values(registry, "lamp_switched_total") == {(*owner, "hall"): 6, (*owner, f"{owner}"): 3}
        assert values(registry, "lamp_lit") == {owner: 2}
        (seconds,) = [each for each in registry.read() if each.kind == "histogram"]
        assert (seconds.series[0].counts, seconds.series[0].value) == ([3, 0], 1.5)
        registry.remove(*owner)


def test_what_is_declared_otherwise_after_a_restart_begins_again(registry):
    declare(registry.metrics_of("lamp"))
    registry.remove("lamp")
    again = registry.metrics_of("lamp").counter("lamp_switched_total", "Switches", labels=["floor"])
    again.labels(floor="1").inc()
    assert values(registry, "lamp_switched_total") == {("lamp", "1"): 1}


def test_counts_that_nobody_goes_on_with_are_not_kept_for_ever(registry):
    for number in range(1100):
        registry.metrics_of(f"lamp{number}").counter("lamp_switched_total", "Switches").inc()
        registry.remove(f"lamp{number}")
    for number in (0, 1099):
        registry.metrics_of(f"lamp{number}").counter("lamp_switched_total", "Switches")
    assert values(registry, "lamp_switched_total") == {("lamp0",): 0, ("lamp1099",): 1}


def reports(count, **fields):
    """Return what the process of a driver reports that has counted to a number."""
    registry = MetricRegistry(FakeClock())
    metrics = registry.metrics_of("lamp", "desk")
    metrics.counter("gpio_switched_total", "Switches", labels=["line"]).labels(line="1").inc(count)
    metrics.gauge("gpio_lines", "Lines").set(count)
    metrics.histogram("gpio_seconds", "Time", buckets=[1]).observe(count)
    return registry.read()


def test_the_counts_of_a_process_go_on_in_the_next_one_and_after_a_restart(registry):
    metrics = registry.metrics_of("lamp", "desk")
    seen = []
    for source, count in ((1, 3), (1, 5), (2, 1), (2, 2), (3, 9)):
        metrics.take_report(reports(count), int(f"7000{source}"))  # equal to the one before, and another object
        seen.append(values(registry, "gpio_switched_total")["lamp", "desk", "1"])
    assert seen == [3, 5, 6, 7, 16]
    assert values(registry, "gpio_lines") == {("lamp", "desk"): 9}
    registry.remove("lamp", "desk")
    metrics.take_report(reports(4), 4)
    assert values(registry, "gpio_switched_total") == {("lamp", "desk", "1"): 20}
    (seconds,) = [each for each in registry.read() if each.kind == "histogram"]
    assert (seconds.series[0].counts, seconds.series[0].value) == ([0, 4], 20)


def test_whoever_reads_many_series_may_do_something_else_in_between(metrics, registry):
    room = metrics.gauge("lamp_lit", "Lamps that are lit", labels=["room"], max_series=2000)
    for number in range(2000):
        room.labels(room=number).set(1)
    parts = list(registry.read_in_parts())
    assert parts.count(None) == 4
    assert len(parts[-1].series) == 2000


def reported(values: list[str], **fields) -> MetricFamily:
    series = [MetricSeries(labels=values, value=3)]
    fields = {"name": "gpio_lines", "kind": "gauge", "help": "Lines", "labels": ["service", "driver"], **fields}
    return MetricFamily(**{"series": series, **fields})


def test_a_report_replaces_the_last_one_whoever_it_says_it_is_of(registry):
    for value in ("lamp", "pretended"):
        registry.metrics_of("lamp", "desk").take_report([reported([value, "desk"])], 1)
    (family,) = registry.read()
    assert [each.labels for each in family.series] == [["lamp", "desk"]]


@pytest.mark.parametrize(
    "fields", [{"name": "ostler_up"}, {"kind": "histogram", "bounds": [1.0]}, {"labels": ["service", "driver", "le"]}]
)
def test_a_report_of_what_could_not_be_declared_is_an_error(registry, fields):
    with pytest.raises(ContractError):
        registry.metrics_of("lamp", "desk").take_report([reported(["lamp", "desk"], **fields)], 1)


def test_a_report_that_clashes_with_another_metric_is_logged_once(registry, caplog):
    registry.metrics_of("lamp").gauge("gpio_lines", "Lines in use").set(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            registry.metrics_of("lamp", "desk").take_report([reported(["lamp", "desk"])], 1)
    assert len(caplog.records) == 1
    assert [each.value for each in registry.read()[0].series] == [1]
