import pytest

from ostler.clock import FakeClock
from ostler.messaging.interface.versions import evaluate_upgrade
from ostler.store import ServiceRecords, ServiceReport, Store
from ostler.store.records.member_versions import MemberVersions
from ostler.types import ServiceState

UP = ServiceState.UP
GRACE = 300.0


@pytest.fixture
def records(store: Store, clock: FakeClock) -> ServiceRecords:
    return ServiceRecords(store, clock, "node1")


@pytest.fixture
def members(clock: FakeClock) -> MemberVersions:
    return MemberVersions(clock)


@pytest.fixture
def fleet(records: ServiceRecords, store: Store, clock: FakeClock):
    """Two hosts: node1 speaks 1.1, node2 speaks 1.0."""
    other = ServiceRecords(store, clock, "node2")
    records.register("volume", "volume", "1.1")
    other.register("volume", "volume", "1.0")
    for each in (records, other):
        each.save_reports([ServiceReport("volume", UP)])
    return records, other


@pytest.fixture
def seen(members):
    def look(records, grace=0.0):
        return {each.host: (each.counts, each.why) for each in members.members(records.list(), grace)["volume"]}

    return look


@pytest.fixture
def cap(members):
    return lambda records: evaluate_upgrade("volume", members.members(records.list(), GRACE)["volume"]).cap


def test_the_members_of_a_topic_and_of_its_namespaces(records, members):
    records.register("volume", "volume", "1.1", {"admin": "2.0"})
    found = members.members(records.list(), 0.0)
    assert [(topic, each.host, each.version, each.counts) for topic, rows in found.items() for each in rows] == [
        ("volume", "node1", "1.1", True), ("volume.admin", "node1", "2.0", True),
    ]  # fmt: skip
    assert records.get("volume").namespaces == {"admin": "2.0"}
    records.register("volume", "volume", "1.1")
    assert records.get("volume").namespaces == {}
    assert list(members.members(records.list(), 0.0)) == ["volume"]


@pytest.mark.failure_mode("State", "a stale record pins nobody")
def test_a_stale_record_pins_nobody(fleet, clock, seen, cap):
    records, _gone = fleet
    assert cap(records) == "1.0"
    for _ in range(29):
        clock.advance(10)
        records.save_reports([ServiceReport("volume", UP)])
    assert seen(records, grace=GRACE)["node2"] == (True, "down, counted for another 10s")
    assert cap(records) == "1.0"
    clock.advance(11)
    records.save_reports([ServiceReport("volume", UP)])
    assert seen(records, grace=GRACE)["node2"] == (False, "down, not counted")
    assert cap(records) == "1.1"


@pytest.mark.parametrize("state", [ServiceState.STOPPED, ServiceState.FAILED])
def test_one_that_was_stopped_counts_for_the_grace_time(fleet, clock, state, seen):
    records, other = fleet
    other.save_reports([ServiceReport("volume", state)])
    assert seen(records, grace=GRACE)["node2"] == (True, f"{state}, counted for another 5min")
    clock.advance(301)
    assert seen(records, grace=GRACE)["node2"] == (False, f"{state}, not counted")


def test_a_disabled_one_counts_for_the_grace_time_and_at_once_when_it_is_enabled(fleet, clock, seen):
    records, other = fleet
    records.set_enabled("volume", "node2", enabled=False, reason="old", requester="alice")
    assert seen(records, grace=GRACE)["node2"] == (True, "disabled: old, counted for another 5min")
    clock.advance(301)
    other.save_reports([ServiceReport("volume", UP)])
    assert seen(records, grace=GRACE)["node2"] == (False, "disabled: old, not counted")
    records.set_enabled("volume", "node2", enabled=True)
    assert seen(records, grace=GRACE)["node2"] == (True, "up")


def test_a_wall_clock_set_back_does_not_lengthen_the_grace_time_of_a_disabled_one(fleet, clock, seen):
    records, other = fleet
    records.set_enabled("volume", "node2", enabled=False, reason="old", requester="alice")
    clock.set_wall(clock.wall() - 3600)
    assert seen(records, grace=GRACE)["node2"][0]
    clock.advance(301)
    other.save_reports([ServiceReport("volume", UP)])
    assert not seen(records, grace=GRACE)["node2"][0]


def test_a_record_of_an_earlier_boot_of_this_host_does_not_count(fleet, store, clock, seen):
    del fleet
    clock.reboot("another")
    assert not seen(ServiceRecords(store, clock, "node2"), grace=GRACE)["node2"][0]


def test_one_that_starts_or_drains_counts(fleet, seen):
    records, other = fleet
    for state in (ServiceState.STARTING, ServiceState.DEGRADED, ServiceState.DRAINING):
        other.save_reports([ServiceReport("volume", state)])
        assert seen(records)["node2"] == (True, str(state))


def test_a_service_that_is_gone_from_the_configuration_does_not_count_at_once(records, seen):
    records.register("volume", "volume", "1.1")
    records.mark_gone([], [])
    assert seen(records, GRACE)["node1"] == (False, "removed, not counted")
