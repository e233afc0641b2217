import pytest

from ostler.store import ServiceRecords
from ostler.store.records.remote_services import RemoteServices
from ostler.types import ServiceState, ServiceStatus


def row(**facts):
    return ServiceStatus(**{"topic": "volume", "host": "node2", "state": ServiceState.UP, "beat": 1, **facts})


@pytest.fixture
def observed(store, clock):
    return RemoteServices(store, clock)


@pytest.fixture
def records(store, clock):
    return ServiceRecords(store, clock, "node1")


def test_a_service_elsewhere_is_in_the_table_as_its_daemon_tells(observed, records):
    observed.save("node2", [row(rpc_version="1.4", namespaces={"admin": "2.0"}, why="", manager="volume")])
    (found,) = records.list()
    assert (found.host, found.up, found.here, found.rpc_version) == ("node2", True, False, "1.4")
    assert found.namespaces == {"admin": "2.0"}
    observed.save("node2", [row(state=ServiceState.DEGRADED, why="a disk is full", enabled=False, beat=2)])
    (found,) = records.list()
    assert (found.state, found.why, found.enabled) == (ServiceState.DEGRADED, "a disk is full", False)


def test_one_whose_number_does_not_grow_is_down_after_a_while(observed, records, clock):
    observed.save("node2", [row()])
    assert records.list()[0].up
    clock.advance(61)
    assert not records.list()[0].up
    observed.save("node2", [row(beat=2)])
    assert records.list()[0].up


def test_the_age_of_a_report_is_not_that_of_the_look(observed, records, clock):
    observed.save("node2", [row(beat=5)])
    reported = clock.wall()
    clock.advance(20)
    observed.save("node2", [row(beat=5)])
    assert records.get("volume", "node2").last_report == reported
    observed.save("node2", [row(beat=6)])
    assert records.get("volume", "node2").last_report == reported + 20


def test_what_has_not_changed_is_not_written_again_at_once(observed, clock):
    assert observed.needs_write("node2", [row()])
    assert not observed.needs_write("node2", [row(beat=2, in_flight=5)])
    assert observed.needs_write("node2", [row(state=ServiceState.DRAINING)])
    assert not observed.needs_write("node2", [row(state=ServiceState.DRAINING)])
    clock.advance(16)
    assert observed.needs_write("node2", [row(state=ServiceState.DRAINING)])
    assert observed.needs_write("node3", [row(host="node3")])
    assert observed.needs_write("node4", [])  # it may have had some before: those are gone
    clock.advance(16)
    assert not observed.needs_write("node4", [])


def test_what_a_host_has_no_more_is_gone_until_it_has_it_again(observed, records):
    observed.save("node2", [row(), row(topic="backup")])
    observed.save("node2", [row(beat=2)])
    assert [(found.topic, str(found.state), found.up) for found in records.list()] == [
        ("backup", "gone", False),
        ("volume", "up", True),
    ]
    observed.save("node2", [row(beat=3), row(topic="backup", beat=3)])
    assert [str(found.state) for found in records.list()] == ["up", "up"]
