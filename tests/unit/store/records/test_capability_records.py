import pytest

from ostler.clock import FakeClock
from ostler.errors import EncodeError
from ostler.store import CapabilityRecords, ServiceRecords, ServiceReport
from ostler.types import CapabilityReport, ServiceState


@pytest.fixture
def records(store, clock):
    return CapabilityRecords(store, clock, "node1")


@pytest.fixture
def services(store, clock):
    found = ServiceRecords(store, clock, "node1")
    found.register("volume", "volume", "1.0")
    return found


def put(records, backends, host="node1", **more):
    fields = {"topic": "volume", "reported_at": 1000.0, **more}
    report = CapabilityReport(host=host, backends=backends, **fields)
    records.save(report)
    return report


def only(records, **limits):
    (report,) = records.list(**limits)
    return report


def test_what_was_said_last_counts(records, services, clock):
    put(records, {"local": {"free": 10}}, "node1")
    put(records, {"local": {"free": 7, "tags": ["ssd"]}, "slow": {}}, "node1")
    report = only(records)
    assert report.backends == {"local": {"free": 7, "tags": ["ssd"]}, "slow": {}}
    assert (report.topic, report.host, report.reported_at) == ("volume", "node1", 1000.0)
    assert (report.stale, report.enabled, report.up) == (False, True, True)


def test_old_capabilities_are_stale(records, services, clock):
    put(records, {}, "node1")
    clock.advance(181)
    assert only(records).stale
    assert not only(records, stale_after={"volume": 200.0}).stale


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_makes_nothing_stale(records, services, clock, hours):
    put(records, {}, "node1")
    clock.set_wall(clock.wall() + 3600 * hours)
    assert not only(records).stale


def test_capabilities_of_an_earlier_boot_are_stale(records, services, clock):
    put(records, {}, "node1")
    clock.reboot("next")
    report = only(records)
    assert report.stale
    assert not report.up


def test_the_operators_word_and_the_services_life_show(records, services, clock):
    put(records, {}, "node1")
    services.set_enabled("volume", "node1", False, "x", "alice")
    assert not only(records).enabled
    services.save_reports([ServiceReport("volume", ServiceState.STOPPED)])
    assert not only(records).up
    services.save_reports([ServiceReport("volume", ServiceState.UP)])
    clock.advance(61)
    assert not only(records).up
    assert only(records, down_times=100.0).up


def test_capabilities_without_a_service_are_not_up(records):
    put(records, {}, "node1")
    report = only(records)
    assert not report.up
    assert not report.enabled


def test_capabilities_of_another_host_go_by_their_number(store, clock):
    there = FakeClock(boot_id="there")
    remote, local = CapabilityRecords(store, there, "node2"), CapabilityRecords(store, clock, "node1")
    put(remote, {}, "node2", reported_at=there.wall())
    assert not only(local).stale
    for _ in range(5):
        clock.advance(100)
        put(remote, {}, "node2", reported_at=there.wall())
        assert not only(local).stale
    clock.advance(200)
    assert only(local).stale


def test_what_is_no_json_is_refused_by_topic(records):
    for value in (object(), float("nan")):
        with pytest.raises(EncodeError, match="capabilities of volume are not plain JSON"):
            put(records, {"local": {"free": value}}, "node1")


def test_who_reported_in_which_order_and_what_is_withheld_is_kept_and_ages(records, services, clock):
    put(records, {"local": {}}, instance="a1", sequence=7, ages={"local": 2.0}, withheld={"slow": "it is stuck"})
    clock.advance(10)
    report = only(records)
    assert (report.instance, report.sequence, report.withheld) == ("a1", 7, {"slow": "it is stuck"})
    assert report.ages == {"local": 12.0}


def test_a_withdrawal_takes_the_place_of_what_was_offered(records, services):
    put(records, {"local": {}}, instance="a1", sequence=1)
    put(records, {}, instance="a1", sequence=2)
    assert (only(records).backends, only(records).sequence) == ({}, 2)


@pytest.mark.failure_mode("Plugins", "capabilities that are odd, very large or cannot be read")
def test_capabilities_nested_without_an_end_are_refused(records):
    deep = []
    for _ in range(300_000):
        deep = [deep]
    with pytest.raises(EncodeError, match="not plain JSON"):
        put(records, {"local": {"deep": deep}})
