from __future__ import annotations

import asyncio

import pytest

from ostler import Conflict, DriverError, DriverNotReady, DriverState, InvalidInput, StoreUnavailable
from ostler_volume.backend_identity import IDENTITY_KEY, RECORDS_KEY
from ostler_volume.errors import AlreadyExists, UnknownBackend, VolumeNotFound, WrongState
from ostler_volume.tables import VolumeRow

MIB = 2**20


@pytest.fixture
def kv(store):
    return store.kv("driver/volume/local")


@pytest.fixture
def driver(folder, kit, kv):
    made = kit.file_driver(folder, kv=kv)
    yield made
    made.cleanup()


@pytest.fixture
def renamed(manager, drivers, ctx, kit, store, folder):
    """A manager with a volume, its snapshot and one that was being made, whose backend has another name now."""
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.create_snapshot(ctx, "a", "s")
    manager.create_volume(ctx, "slow", "1MiB", backend="local")
    (folder / "volumes" / "slow").rename(folder / "volumes" / ".slow.partial")
    store.write(lambda: VolumeRow.update(state="creating").where(VolumeRow.name == "slow").execute())
    drivers.pop("local").cleanup()
    ssd = kit.file_driver(folder, name="ssd", kv=store.kv("driver/volume/ssd"))
    again = kit.manager(store, kit.FakeDrivers(ssd=ssd))
    again.init_host(1, False)
    again.driver_ready("ssd")
    yield again
    ssd.cleanup()


def test_the_driver_knows_whether_volumes_are_recorded_on_its_backend(manager, ctx, kv):
    assert not kv.get(RECORDS_KEY)
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.create_volume(ctx, "b", "1MiB", backend="local")
    assert kv.get(RECORDS_KEY) is True
    manager.delete_volume(ctx, "a")
    assert kv.get(RECORDS_KEY) is True
    manager.forget_volume(ctx, "b")
    assert kv.get(RECORDS_KEY) is False
    manager.manage_volume(ctx, "b")
    assert kv.get(RECORDS_KEY) is True


@pytest.mark.failure_mode("State", "a backend that was renamed")
def test_volumes_of_a_backend_that_was_renamed_are_told_and_follow_it(renamed, ctx, files):
    (line,) = renamed.problems()
    assert "backend local is not in the configuration, but has 2 volumes: a, slow" in line
    assert "`ostler volume move-backend local ssd` moves the records to ssd, which has its directory now" in line
    listed = asyncio.run(renamed.list_volumes(ctx))
    assert [one.why for one in listed] == ["backend local is not in the configuration"] * 2
    assert [one.fault for one in listed] == ["backend"] * 2
    with pytest.raises(UnknownBackend):
        renamed.delete_volume(ctx, "a")
    assert renamed.move_backend(ctx, "local", "ssd") == 2
    assert [(one.name, one.state, one.backend) for one in renamed.records.volumes()] == [("a", "available", "ssd")]
    assert files() == ["snapshots/a@s", "volumes/a"]
    assert renamed.problems() == []
    assert renamed.create_volume(ctx, "slow", "1MiB", backend="ssd").state == "available"
    renamed.delete_snapshot(ctx, "a", "s")
    renamed.delete_volume(ctx, "a")


def test_names_of_a_backend_that_is_gone_can_be_freed(renamed, ctx, files):
    for name in ("a", "slow"):
        renamed.forget_volume(ctx, name)
    assert renamed.records.volumes() == []
    assert renamed.records.snapshots() == []
    renamed.check(ctx)
    assert files() == ["snapshots/a@s", "volumes/a"]
    (line,) = renamed.problems()
    assert line.startswith("2 files without a record on backend ssd, ignored: a, a@s")
    managed = renamed.manage_volume(ctx, "a")
    assert (managed.state, managed.backend, managed.size, managed.snapshots) == ("available", "ssd", MIB, 1)
    assert renamed.problems() == []


def test_records_are_not_moved_to_a_backend_that_has_not_the_files(renamed, ctx, kit, store, tmp_path):
    other = kit.file_driver(tmp_path / "other", name="other", kv=store.kv("driver/volume/other"))
    renamed.drivers["other"] = other
    with pytest.raises(Conflict, match="does not have the files of local: a, a@s not found"):
        renamed.move_backend(ctx, "local", "other")
    assert renamed.records.volume("a").backend == "local"
    renamed.move_backend(ctx, "local", "other", force=True)
    assert [(one.name, one.state) for one in renamed.records.volumes()] == [("a", "error")]
    other.cleanup()


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("nowhere", "ssd", InvalidInput, "no volume is recorded on the backend nowhere"),
        ("local", "local", InvalidInput, "already"),
        ("local", "nowhere", UnknownBackend, "backend nowhere not found"),
    ],
)
def test_a_wrong_move_is_refused_by_name(renamed, ctx, old, new, error, words):
    with pytest.raises(error, match=words):
        renamed.move_backend(ctx, old, new)


def test_records_of_a_backend_that_is_ready_stay_with_it(manager, ctx, drivers, kit, tmp_path):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    drivers["other"] = kit.file_driver(tmp_path / "other", name="other")
    with pytest.raises(Conflict, match="is ready"):
        manager.move_backend(ctx, "local", "other")
    drivers.states["other"] = DriverState.FAILED
    drivers.states["local"] = DriverState.FAILED
    with pytest.raises(DriverNotReady):
        manager.move_backend(ctx, "local", "other")
    drivers["other"].cleanup()


def test_a_file_without_a_record_is_taken_over_under_its_name(manager, ctx, folder, client):
    (folder / "volumes" / "old").write_bytes(b"precious" + bytes(MIB - 8))
    (folder / "snapshots" / "old@daily").write_bytes(bytes(MIB))
    manager.check(ctx)
    with pytest.raises(AlreadyExists, match="without a record"):
        manager.create_volume(ctx, "old", "1MiB", backend="local")
    managed = manager.manage_volume(ctx, "old", "local")
    assert (managed.state, managed.size, managed.snapshots) == ("available", MIB, 1)
    assert manager.records.snapshot("old", "daily").state == "available"
    assert manager.capabilities()["local"]["unknown_files"] == 0
    assert ("managed", {"name": "old", "backend": "local", "size": MIB}) in client.events
    assert (folder / "volumes" / "old").read_bytes().startswith(b"precious")
    with pytest.raises(AlreadyExists, match="is already managed, on backend local"):
        manager.manage_volume(ctx, "old")


@pytest.mark.root
def test_a_file_that_is_attached_is_taken_over_as_in_use(root, manager, ctx, folder, driver):
    (folder / "volumes" / "old").write_bytes(bytes(MIB))
    device = driver.attach(ctx, "old")
    try:
        managed = manager.manage_volume(ctx, "old")
        assert (managed.state, managed.device) == ("in-use", device)
        with pytest.raises(WrongState, match="in-use"):
            manager.forget_volume(ctx, "old")
    finally:
        manager.detach_volume(ctx, "old")


def test_what_cannot_be_taken_over_is_said_by_name(manager, ctx, drivers, kit, tmp_path):
    with pytest.raises(VolumeNotFound, match="on any ready backend"):
        manager.manage_volume(ctx, "old")
    with pytest.raises(VolumeNotFound, match="on backend local"):
        manager.manage_volume(ctx, "old", "local")
    with pytest.raises(UnknownBackend):
        manager.manage_volume(ctx, "old", "nowhere")
    drivers["other"] = kit.file_driver(tmp_path / "other", name="other")
    for each in drivers.values():
        (each.directory.path / "volumes" / "old").write_bytes(bytes(MIB))
    with pytest.raises(InvalidInput, match="several backends have a file old: local, other"):
        manager.manage_volume(ctx, "old")
    assert manager.manage_volume(ctx, "old", "other").backend == "other"
    drivers["other"].cleanup()


def test_the_record_of_a_volume_at_work_is_not_dropped(manager, ctx, store):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    store.write(lambda: VolumeRow.update(state="extending").execute())
    with pytest.raises(WrongState, match="is extending"):
        manager.forget_volume(ctx, "a")
    with pytest.raises(VolumeNotFound):
        manager.forget_volume(ctx, "b")


@pytest.mark.failure_mode("State", "a disk that is not mounted, or another directory in its place")
def test_while_a_backend_is_not_the_one_it_was_its_records_stay_as_they_are(
    manager, ctx, drivers, driver, folder, kit, kv
):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.create_snapshot(ctx, "a", "s")
    before = manager.records.volumes(), manager.records.snapshots()
    away = folder.with_name("away")
    folder.rename(away)
    for _ in range(2):  # taken away while the daemon runs, then with an empty directory in its place
        for refused in (
            lambda: manager.delete_volume(ctx, "a"),
            lambda: manager.delete_snapshot(ctx, "a", "s"),
            lambda: manager.extend_volume(ctx, "a", "2MiB"),
            lambda: manager.create_volume(ctx, "b", "1MiB", backend="local"),
            lambda: manager.create_volume(ctx, "b", source="a"),
            lambda: manager.attach_volume(ctx, "a"),
        ):
            with pytest.raises(DriverError, match="not the backend it was"):
                refused()
        manager.check(ctx)
        assert (manager.records.volumes(), manager.records.snapshots()) == before
        folder.mkdir(exist_ok=True)
    driver.cleanup()
    with pytest.raises(DriverError, match="the directory is empty"):
        kit.file_driver(folder, kv=kv)
    drivers.states["local"], drivers.whys["local"] = DriverState.FAILED, "not the backend it was"
    shown = asyncio.run(manager.get_volume(ctx, "a"))
    assert (shown.state, shown.why) == ("available", "its backend local is failed: not the backend it was")
    folder.rmdir()
    away.rename(folder)
    drivers["local"] = kit.file_driver(folder, kv=kv)
    drivers.states.clear()
    manager.driver_ready("local")
    assert (manager.records.volumes(), manager.records.snapshots()) == before
    assert asyncio.run(manager.get_volume(ctx, "a")) == before[0][0]
    drivers["local"].cleanup()


def test_an_operator_lets_a_backend_take_another_directory(manager, ctx, drivers, driver, folder, kit, kv):
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    with pytest.raises(Conflict, match="is ready"):
        manager.accept_backend(ctx, "local")
    with pytest.raises(UnknownBackend):
        manager.accept_backend(ctx, "nowhere")
    driver.cleanup()
    folder.rename(folder.with_name("lost"))
    drivers.states["local"] = DriverState.FAILED
    manager.accept_backend(ctx, "local")
    assert kv.get(IDENTITY_KEY) is None
    drivers["local"] = kit.file_driver(folder, kv=kv)
    drivers.states.clear()
    manager.driver_ready("local")
    assert manager.records.volume("a").fault == "missing"
    manager.delete_volume(ctx, "a")
    drivers["local"].cleanup()


class FullStore:
    """A store whose writes fail for want of room while `full`; of the spare room so many parts are left."""

    def __init__(self, store):
        self._store, self.full, self.parts = store, False, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, fn, **named):
        if self.full:
            raise StoreUnavailable("the database cannot grow: no space is left", reason="SQLITE_FULL")
        return self._store.write(fn, **named)

    def release_spare_room(self):
        self.parts -= 1
        if self.parts >= 0:
            self.full = False
        return self.parts >= 0


@pytest.fixture
def on_full_disk(store, drivers, kit, ctx, driver):
    """A manager on a database that cannot grow: as soon as a file is deleted it can."""
    full = FullStore(store)
    manager = kit.manager(full, drivers)
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.create_volume(ctx, "b", "1MiB", backend="local")
    manager.create_snapshot(ctx, "a", "s")

    def room(step):
        if step == "sync folder":
            full.full = False

    driver.directory.on_step = room
    return manager, full


@pytest.mark.failure_mode("State", "a full disk that something has to be deleted on")
@pytest.mark.parametrize("parts", [0, 2])
def test_deleting_works_when_the_database_cannot_grow(on_full_disk, ctx, files, parts):
    manager, full = on_full_disk
    full.full, full.parts = True, parts
    with pytest.raises(StoreUnavailable):
        manager.create_volume(ctx, "c", "1MiB", backend="local")
    full.full = True
    manager.delete_snapshot(ctx, "a", "s")
    full.full = True
    manager.delete_volume(ctx, "a")
    assert [one.name for one in manager.records.volumes()] == ["b"]
    assert files() == ["volumes/b"]


def test_what_must_not_be_deleted_is_refused_on_a_full_disk_as_well(on_full_disk, ctx, files, store):
    manager, full = on_full_disk
    before = files()
    full.full = True
    with pytest.raises(Conflict, match="has 1 snapshot"):
        manager.delete_volume(ctx, "a")
    store.write(lambda: VolumeRow.update(state="in-use").where(VolumeRow.name == "b").execute())
    with pytest.raises(WrongState, match="in-use"):
        manager.delete_volume(ctx, "b")
    assert files() == before


def test_a_database_that_is_locked_is_no_full_disk(on_full_disk, ctx, files):
    manager, full = on_full_disk
    before = files()

    def locked(*_args, **_named):
        raise StoreUnavailable("the database is locked", reason="SQLITE_BUSY")

    full.write = locked
    with pytest.raises(StoreUnavailable, match="locked"):
        manager.delete_volume(ctx, "b")
    with pytest.raises(StoreUnavailable, match="locked"):
        manager.delete_snapshot(ctx, "a", "s")
    assert files() == before
