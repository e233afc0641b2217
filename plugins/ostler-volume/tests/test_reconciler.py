from __future__ import annotations

import pytest

from ostler import Context
from ostler_volume.tables import VolumeRow

# private: _context: a lock that another request would hold
# private: _repair: an operation that fails, and whose repair does as well

MIB = 2**20


@pytest.fixture
def again(store, drivers, kit):
    """Start the service anew on the same store and backend."""

    def start():
        manager = kit.manager(store, drivers)
        manager.init_host(1, False)
        manager.driver_ready("local")
        return manager

    return start


def test_what_is_well_is_left_as_it_is(manager, again, ctx, caplog):
    made = manager.create_volume(ctx, "a", "1MiB")
    manager.create_snapshot(ctx, "a", "s")
    assert [one.state for one in again().records.volumes()] == [made.state]
    assert again().records.volume("a").since == made.since
    assert caplog.records == []


def test_a_missing_file_is_an_error_with_why_until_it_is_back(manager, ctx, folder):
    manager.create_volume(ctx, "a", "1MiB")
    manager.create_snapshot(ctx, "a", "s")
    away = folder.parent / "away"
    (folder / "volumes" / "a").rename(away)
    (folder / "snapshots" / "a@s").rename(folder.parent / "away-s")
    manager.check(ctx)
    manager.check(ctx)
    volume, snapshot = manager.records.volume("a"), manager.records.snapshot("a", "s")
    assert (volume.state, volume.why, volume.fault) == ("error", "the file of a is missing", "missing")
    assert (snapshot.state, snapshot.fault) == ("error", "missing")
    away.rename(folder / "volumes" / "a")
    (folder.parent / "away-s").rename(folder / "snapshots" / "a@s")
    manager.check(ctx)
    assert (manager.records.volume("a").state, manager.records.volume("a").why) == ("available", "")
    assert manager.records.snapshot("a", "s").state == "available"


def test_a_volume_whose_file_is_gone_for_good_can_be_deleted(manager, ctx, folder):
    manager.create_volume(ctx, "a", "1MiB")
    (folder / "volumes" / "a").unlink()
    manager.check(ctx)
    manager.delete_volume(ctx, "a")
    assert manager.records.volumes() == []


def test_files_without_a_record_are_named_counted_and_never_deleted(manager, ctx, folder, caplog):
    (folder / "volumes" / "stranger").write_bytes(bytes(MIB))
    (folder / "snapshots" / "x@y").write_bytes(bytes(MIB))
    manager.driver_ready("local")
    manager.check(ctx)
    assert caplog.text.count("files without a record on backend local, ignored: stranger, x@y") == 1
    facts = manager.capabilities()["local"]
    assert (facts["unknown_files"], facts["unknown"], facts["provisioned_bytes"]) == (2, ["stranger", "x@y"], 2 * MIB)
    with pytest.raises(Exception, match="a file stranger without a record"):
        manager.create_volume(ctx, "stranger", "1MiB", backend="local")
    assert (folder / "volumes" / "stranger").exists()


def test_a_file_that_appeared_since_the_last_look_is_not_taken_for_ours(manager, ctx, folder):
    (folder / "volumes" / "a").write_text("precious")
    with pytest.raises(Exception, match="already exists"):
        manager.create_volume(ctx, "a", "1MiB", backend="local")
    cancelled = Context("volume", "t")
    cancelled.cancel()
    with pytest.raises(Exception, match="cancelled"):
        manager.create_volume(cancelled, "a", 512, backend="local")
    assert manager.records.volumes() == []
    assert (folder / "volumes" / "a").read_text() == "precious"


def test_unfinished_files_of_nobody_are_cleared_away(manager, folder, files):
    (folder / "volumes" / ".a.partial").write_text("x")
    (folder / "snapshots" / ".a@s.partial").write_text("x")
    manager.driver_ready("local")
    assert files() == []


def test_what_is_being_worked_on_is_passed_by(manager, store, ctx):
    manager.create_volume(ctx, "a", "1MiB")
    store.write(lambda: VolumeRow.update(state="extending").execute())
    with manager._context.locks.lock_shared(ctx, "a"):
        manager.driver_ready("local")
        assert manager.records.volume("a").state == "extending"
    manager.driver_ready("local")
    assert manager.records.volume("a").state == "available"


def test_one_that_cannot_be_repaired_does_not_keep_the_others_from_it(manager, store, driver, ctx, caplog):
    manager.create_volume(ctx, "a", "1MiB")
    manager.create_volume(ctx, "b", "1MiB")
    store.write(lambda: VolumeRow.update(state="deleting").execute())
    delete = driver.delete

    def broken(name):
        if name == "a":
            raise ZeroDivisionError
        delete(name)

    driver.delete = broken
    manager.driver_ready("local")
    assert [one.name for one in manager.records.volumes()] == ["a"]
    assert "cannot repair a;" in caplog.text


def test_a_volume_that_was_attached_before_a_reboot_is_available(manager, store, again, ctx):
    manager.create_volume(ctx, "a", "1MiB")
    manager.records.end_transition("a", "in-use", device="/dev/loop77")
    volume = again().records.volume("a")
    assert (volume.state, volume.device) == ("available", "")


@pytest.mark.root
def test_what_is_attached_stays_attached_over_a_restart(root, manager, again, ctx, driver):
    manager.create_volume(ctx, "a", "4MiB")
    device = manager.attach_volume(ctx, "a").device
    try:
        restarted = again()
        volume = restarted.records.volume("a")
        assert (volume.state, volume.device) == ("in-use", device)
        with pytest.raises(Exception, match="is in-use"):
            restarted.delete_volume(ctx, "a")
    finally:
        assert again().detach_volume(ctx, "a").state == "available"
    assert driver.inventory().devices == {}


@pytest.mark.root
def test_a_device_that_somebody_made_by_hand_is_seen_and_protects_the_volume(root, manager, ctx, driver):
    manager.create_volume(ctx, "a", "4MiB")
    driver.attach(ctx, "a")
    try:
        with pytest.raises(Exception, match="a is in use by"):
            manager.delete_volume(ctx, "a")
        manager.check(ctx)
        assert manager.records.volume("a").state == "in-use"
    finally:
        manager.detach_volume(ctx, "a")


class Odd(Exception):
    """It has no text."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [OSError("k\udcf6ln.img"), Odd(), OSError("x" * 8_000_000)], ids=["name", "odd", "long"]
)
def test_the_record_of_a_failed_operation_is_true_whatever_the_error_is(manager, ctx, drivers, error, monkeypatch):
    manager.create_volume(ctx, "a", "1MiB")

    def fails(*_):
        raise error

    monkeypatch.setattr(type(drivers["local"]), "delete", fails, raising=False)
    monkeypatch.setattr(manager.reconciler, "_repair", fails)
    with pytest.raises(type(error)):
        manager.delete_volume(ctx, "a")
    found = manager.records.volume("a")
    assert found.state == "error"
    assert found.why.startswith(type(error).__name__)
    assert len(found.why) < 5000


def test_volumes_in_error_are_told_with_their_number_since_when_and_why(manager, ctx, folder):
    assert manager.problems() == []
    for number in range(7):
        manager.create_volume(ctx, f"a{number}", "1MiB")
    manager.create_snapshot(ctx, "a0", "s")
    (folder / "snapshots" / "a0@s").unlink()
    for number in range(1, 7):
        (folder / "volumes" / f"a{number}").unlink()
    manager.check(ctx)
    volumes, snapshots = manager.problems()
    assert volumes.startswith("6 volumes are in error: a1 since ")
    assert ": the file of a1 is missing; a2 since " in volumes
    assert volumes.endswith("; and 1 more")
    assert snapshots.startswith("1 snapshot is in error: a0@s since ")


@pytest.mark.failure_mode("Plugins", "thousands of attached volumes after a reboot")
@pytest.mark.parametrize("count", [3, 1200])
def test_many_volumes_after_a_reboot_cost_one_look_and_a_few_writes(
    manager, store, driver, ctx, count, caplog, monkeypatch
):
    manager.create_volume(ctx, "seed", "1MiB")
    names = [f"v{number}" for number in range(count)]
    for name in names:
        (driver.directory.path / "volumes" / name).write_bytes(b"")

    def add():
        now = {"topic": "volume", "backend": "local", "size": 0, "promised": 0, "since": 1, "created": 1}
        VolumeRow.insert_many([{**now, "name": name, "state": "in-use"} for name in names]).execute()

    store.write(add)
    looks, writes, told = [], [], []
    inventory, write = driver.inventory, store.write
    monkeypatch.setattr(driver, "inventory", lambda: looks.append(1) or inventory())
    monkeypatch.setattr(store, "write", lambda *args, **more: writes.append(1) or write(*args, **more))
    manager.reconciler.reconcile_backend("local", told.append)
    assert {one.state for one in manager.records.volumes()} == {"available"}
    assert len(looks) == 2
    assert len(writes) <= 2 * (1 + count // 500)
    assert told[1] == f"local: 0 of {count} records corrected"
    assert len(caplog.messages) == min(count, 20) + (count > 20)
    if count > 20:
        assert caplog.messages[-1] == "1180 more records were corrected; they are logged at level debug"


def test_a_record_that_cannot_be_set_with_the_others_keeps_none_from_it(manager, ctx, monkeypatch, caplog):
    for name in ("a", "b", "c"):
        manager.create_volume(ctx, name, "1MiB")
        manager.records.end_transition(name, "in-use", device="/dev/loop77")
    settle = manager.records.end_transitions

    def broken(wanted):
        if "b" in wanted:
            raise ZeroDivisionError
        settle(wanted)

    monkeypatch.setattr(manager.records, "end_transitions", broken)
    manager.reconciler.reconcile_backend("local")
    assert [one.state for one in manager.records.volumes()] == ["available", "in-use", "available"]
    assert "cannot repair b;" in caplog.text
