import logging

import pytest

from ostler.clock import FakeClock
from ostler.errors import NotFound, StoreUnavailable
from ostler.store import CapabilityRecords, ServiceRecords, ServiceReport, Store
from ostler.store.models import CapabilityRow, ServiceRow
from ostler.store.records.service_records import Registration, mark_rows_gone
from ostler.types import CapabilityReport, OperatorOverride, ServiceState

UP = ServiceState.UP


@pytest.fixture
def records(store: Store, clock: FakeClock) -> ServiceRecords:
    return ServiceRecords(store, clock, "node1")


@pytest.fixture
def volume(records: ServiceRecords) -> ServiceRecords:
    records.register("volume", "volume", "1.2")
    records.save_reports([ServiceReport("volume", UP)])
    return records


def only(records):
    (status,) = records.list()
    return status


def test_a_registered_service_is_starting(records, clock):
    assert records.register("volume", "volume", "1.2") == Registration(1, False)
    status = only(records)
    assert (status.topic, status.host, status.manager, status.rpc_version) == ("volume", "node1", "volume", "1.2")
    assert (status.state, status.up, status.enabled, status.beat) == (ServiceState.STARTING, True, True, 1)
    assert status.since == status.last_report == clock.wall()


def test_registering_again_keeps_the_row_and_what_the_operator_said(volume):
    volume.set_enabled("volume", "node1", False, "disk swap", "alice")
    assert volume.register("volume", "volume", "1.3").id == 1
    status = only(volume)
    assert (status.enabled, status.disabled_reason, status.disabled_by) == (False, "disk swap", "alice")
    assert (status.rpc_version, status.beat) == ("1.3", 3)


def test_all_services_report_in_one_write(records, store):
    for topic in ("volume", "scheduler", "lamp"):
        records.register(topic, topic, "1.0")
    before = store.stats()["writes"]
    records.save_reports(
        [
            ServiceReport("volume", UP),
            ServiceReport("scheduler", ServiceState.DEGRADED, "no driver", 7.0),
            ServiceReport("lamp", UP),
        ]
    )
    assert store.stats()["writes"] - before == 1
    found = {status.topic: status for status in records.list()}
    assert list(found) == ["lamp", "scheduler", "volume"]
    assert (found["scheduler"].state, found["scheduler"].why, found["scheduler"].since) == (
        "degraded",
        "no driver",
        7.0,
    )


def test_reports_can_be_part_of_a_callers_write(volume, store):
    store.write(lambda: volume.save_reports([ServiceReport("volume", UP)]), urgent=True)
    assert only(volume).beat == 3


@pytest.mark.failure_mode("State", "record deleted under a live service")
def test_record_deleted_under_a_live_service(volume, store, caplog):
    caplog.set_level(logging.WARNING)
    volume.set_enabled("volume", "node1", False, "x", "alice")
    store.write(lambda: ServiceRow.delete().execute())
    volume.save_reports([ServiceReport("volume", UP)])
    status = only(volume)
    assert (status.manager, status.rpc_version, status.state, status.enabled) == ("volume", "1.2", "up", True)
    assert "the record of service volume on node1 was missing and has been recreated" in caplog.text
    assert status.beat == 1


def test_a_service_that_started_while_nothing_could_be_written_has_lost_no_record(
    volume, store, clock, caplog, monkeypatch
):
    caplog.set_level(logging.WARNING)
    records = ServiceRecords(store, clock, "node2")
    monkeypatch.setattr(store, "write", refuse)
    with pytest.raises(StoreUnavailable):
        records.register("volume", "volume", "1.2")
    monkeypatch.undo()
    records.save_reports([ServiceReport("volume", UP)])
    assert "recreated" not in caplog.text
    store.write(lambda: ServiceRow.delete().execute())
    records.save_reports([ServiceReport("volume", UP)])
    assert "the record of service volume on node2 was missing" in caplog.text


def refuse(*_arguments, **_named):
    raise StoreUnavailable("no space left")


def test_a_service_without_reports_is_down_after_its_down_time(volume, clock):
    clock.advance(60)
    assert only(volume).up
    clock.advance(1)
    assert not only(volume).up
    assert volume.list(120.0)[0].up
    assert volume.list({"volume": 120.0})[0].up
    assert not volume.list({"lamp": 120.0})[0].up


def test_a_stopped_or_failed_service_is_not_up_however_fresh_its_word(volume):
    for state in (ServiceState.STOPPED, ServiceState.FAILED):
        volume.save_reports([ServiceReport("volume", state)])
        assert not only(volume).up
    volume.save_reports([ServiceReport("volume", ServiceState.DRAINING)])
    assert only(volume).up


@pytest.mark.failure_mode("State", "clock set an hour back and forth")
@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_set_an_hour_back_and_forth(volume, clock, hours):
    clock.set_wall(clock.wall() + hours * 3600)
    assert only(volume).up
    clock.advance(61)
    assert not only(volume).up
    volume.save_reports([ServiceReport("volume", UP)])
    assert only(volume).up


def test_a_row_of_an_earlier_boot_is_down_at_once(volume, store, clock):
    clock.reboot("next-boot")
    after = ServiceRecords(store, clock, "node1")
    assert not only(after).up
    after.register("volume", "volume", "1.2")
    assert only(after).up


def test_another_daemon_on_this_machine_is_judged_by_the_boot_clock(volume, store, clock):
    neighbour = ServiceRecords(store, clock, "node2")
    clock.set_wall(clock.wall() - 7200)
    assert only(neighbour).up
    assert not only(neighbour).here
    clock.advance(61)
    assert not only(neighbour).up


def test_another_host_is_judged_by_its_beats_on_our_clock(store):
    here, there = FakeClock(boot_id="here"), FakeClock(boot_id="there", monotonic=5.0)
    local, remote = ServiceRecords(store, here, "node1"), ServiceRecords(store, there, "node2")
    remote.register("volume", "volume", "1.0")
    assert only(local).up
    # Their clock is set two hours back: only the number counts, and it grows.
    there.set_wall(there.wall() - 7200)
    for _ in range(20):
        here.advance(10)
        remote.save_reports([ServiceReport("volume", UP)])
        assert only(local).up
    # It dies; ours is set back, which must not keep it alive.
    here.set_wall(here.wall() - 7200)
    here.advance(61)
    assert not only(local).up
    remote.save_reports([ServiceReport("volume", UP)])
    assert only(local).up


def test_a_dead_row_of_another_host_does_not_come_alive_by_our_restart(store):
    there = FakeClock(boot_id="there")
    ServiceRecords(store, there, "node2").register("volume", "volume", "1.0")
    restarted = FakeClock(boot_id="here", wall=there.wall() + 86_400)
    assert not only(ServiceRecords(store, restarted, "node1")).up


def test_enabled_is_the_operators_and_says_who_and_why(volume):
    volume.set_enabled("volume", "node1", False, "disk swap", "alice")
    assert only(volume).disabled_reason == "disk swap"
    volume.save_reports([ServiceReport("volume", UP)])
    assert not only(volume).enabled
    volume.set_enabled("volume", "node1", True)
    status = only(volume)
    assert (status.enabled, status.disabled_reason, status.disabled_by) == (True, "", "")


def test_a_service_that_does_not_exist_is_refused_by_name(volume):
    for refused in (
        lambda: volume.set_enabled("lamp", "node1", False, "", ""),
        lambda: volume.delete("volume", "node9"),
        lambda: volume.get("lamp"),
    ):
        with pytest.raises(
            NotFound, match=r"service (lamp not found on node1|volume not found on node9).*ostler service list"
        ):
            refused()


def test_get_returns_one_service(volume):
    assert volume.get("volume").host == "node1"


def test_delete_removes_the_capabilities_too(volume, store, clock):
    CapabilityRecords(store, clock, "node1").save(
        CapabilityReport(topic="volume", host="node1", backends={}, reported_at=1.0)
    )
    volume.delete("volume", "node1")
    assert volume.list() == []
    assert store.read(lambda: CapabilityRow.select().count()) == 0


def test_what_is_in_no_configuration_is_gone_and_back_with_its_next_report(volume, store, clock):
    volume.register("scheduler", "scheduler", "1.0")
    ServiceRecords(store, clock, "node2").register("volume", "volume", "1.2")
    ServiceRecords(store, clock, "node3").register("volume", "volume", "1.2")
    clock.advance(5)
    volume.mark_gone(["scheduler"], ["node3"])
    rows = {(row.topic, row.host): row for row in volume.list()}
    assert {place for place, row in rows.items() if row.state is ServiceState.GONE} == {
        ("volume", "node1"),
        ("volume", "node2"),
    }
    gone = rows["volume", "node1"]
    assert (gone.up, gone.since, gone.why) == (
        False,
        clock.wall(),
        "it is no longer in the configuration of this host",
    )
    assert rows["volume", "node2"].why == "its host is no longer a peer of this host"
    clock.advance(5)
    volume.mark_gone(["scheduler"], ["node3"])
    assert volume.get("volume").since == gone.since  # since it is, not since the last start
    volume.save_reports([ServiceReport("volume", UP)])
    assert volume.get("volume").up


def test_what_operators_set_is_kept_apart_and_over_a_start(volume, store, clock):
    frozen = OperatorOverride(by="ann", reason="a new disk", since=5.0)
    forced = OperatorOverride(by="bob", reason="its power is cut", since=6.0)
    volume.set_enabled("volume", "node1", False, "moving", "eve")
    volume.set_override("frozen", "volume", "node1", frozen)
    volume.set_override("forced_down", "volume", "node1", forced)
    volume.save_reports([ServiceReport("volume", UP)])
    again = ServiceRecords(store, clock, "node1")
    assert again.register("volume", "volume", "1.3").frozen == frozen
    status = only(again)
    assert (status.frozen, status.forced_down, status.disabled_by, status.up) == (frozen, forced, "eve", False)
    assert again.forced_down() == {("volume", "node1"): forced}
    volume.set_override("forced_down", "volume", "node1", None)
    status = only(again)
    assert (status.frozen, status.forced_down, status.enabled, status.up) == (frozen, None, False, True)
    assert again.forced_down() == {}
    with pytest.raises(NotFound, match="service lamp not found on node1"):
        volume.set_override("frozen", "lamp", "node1", None)


def test_an_override_is_set_whatever_the_clock_says(volume):
    volume.set_override("frozen", "volume", "node1", OperatorOverride(by="ann", since=0.0))
    assert only(volume).frozen is not None


DAY = 86400.0


def test_rows_that_have_been_gone_for_long_are_removed_and_no_others(volume, store, clock):
    others = ServiceRecords(store, clock, "node2")
    for topic in ("fan", "lamp", "door"):
        others.register(topic, topic, "1.0")
    store.write(lambda: mark_rows_gone(ServiceRow.topic == "fan", "x", clock.wall()))
    clock.advance(20 * DAY)
    store.write(lambda: mark_rows_gone(ServiceRow.topic == "lamp", "x", clock.wall()))
    assert volume.prune_gone(30 * DAY) == []
    clock.advance(11 * DAY)
    assert volume.prune_gone(30 * DAY) == [("fan", "node2")]
    assert [status.topic for status in volume.list()] == ["door", "lamp", "volume"]


@pytest.mark.failure_mode("State", "clock set an hour back and forth")
def test_a_clock_that_is_set_forward_removes_no_rows(volume, store, clock):
    store.write(lambda: mark_rows_gone(ServiceRow.topic == "volume", "x", clock.wall()))
    clock.set_wall(clock.wall() + 300 * DAY)
    assert volume.prune_gone(30 * DAY) == []
