"""What may be promised: on file systems that share blocks, on backends of one file system, beside the database."""

from __future__ import annotations

import os
import threading

import pytest

from ostler import NoCapacity, Store, StoreUnavailable
from ostler_volume.backend_records import BackendMeasurement

# private: _context: the limit itself, before it is compared with what capabilities say

MIB = 2**20


@pytest.fixture
def pair(store, kit, mounted):
    """A manager with two backends on one small file system, and its folder."""
    place = mounted("ext4", 300 * MIB)
    drivers = {name: kit.file_driver(place / name, name=name, reserve="10MiB") for name in ("gold", "silver")}
    manager = kit.manager(store, kit.FakeDrivers(**drivers))
    yield manager, place
    for driver in drivers.values():
        driver.cleanup()


def free(place):
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def fill(manager, ctx, size, backends, **more):
    """Create volumes by turns until none can be; return their paths below the backends."""
    made = []
    for number in range(40):
        try:
            volume = manager.create_volume(ctx, f"v{number}", size, backend=backends[number % len(backends)], **more)
        except NoCapacity:
            return made
        made.append((volume.backend, volume.name))
    raise AssertionError("it never ends")


def write(path, size):
    with path.open("r+b") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


@pytest.mark.failure_mode("State", "room that is counted or promised twice")
@pytest.mark.root
def test_two_backends_on_one_file_system_do_not_promise_it_twice(pair, ctx):
    manager, place = pair
    made = fill(manager, ctx, 20 * MIB, ["gold", "silver"])
    assert len(made) * 20 * MIB > free(place) - 40 * MIB
    facts = manager.capabilities()
    assert facts["gold"]["filesystem"] == facts["silver"]["filesystem"] != ""
    for each in facts.values():
        assert each["promise_limit_bytes"] - each["provisioned_bytes"] < 20 * MIB
    for backend, name in made:  # a promise is always kept
        write(place / backend / "volumes" / name, 20 * MIB)
    assert free(place) < 40 * MIB
    manager.capabilities()
    with pytest.raises(NoCapacity):
        manager.create_volume(ctx, "w", 20 * MIB, backend="gold")
    backend, name = made[0]
    manager.delete_volume(ctx, name)
    manager.create_volume(ctx, "w", 20 * MIB, backend=({"gold", "silver"} - {backend}).pop())


@pytest.mark.root
def test_two_requests_at_once_on_two_backends_get_no_room_twice(pair, ctx):
    manager, place = pair
    size = free(place) * 6 // 10
    start, refused = threading.Barrier(2), []

    def create(backend):
        start.wait()
        try:
            manager.create_volume(ctx, f"on-{backend}", size, backend=backend)
        except NoCapacity as error:
            refused.append(error)

    threads = [threading.Thread(target=create, args=(backend,)) for backend in ("gold", "silver")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1


@pytest.mark.failure_mode("State", "room that is counted or promised twice")
@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_clones_that_share_blocks_do_not_raise_the_limit(store, kit, mounted, ctx, kind):
    place = mounted(kind)
    driver = kit.file_driver(place / "v", reserve="30MiB")
    manager = kit.manager(store, kit.FakeDrivers(local=driver))
    (place / "v" / "images" / "gold.raw").write_bytes(os.urandom(40 * MIB))
    os.sync()
    before = free(place)
    made = fill(manager, ctx, 40 * MIB, ["local"], image=str(place / "v" / "images" / "gold.raw"))
    assert 2 <= len(made) <= before // (40 * MIB)
    os.sync()
    assert free(place) > before - 20 * MIB  # all of them share
    for _, name in made:
        write(place / "v" / "volumes" / name, 40 * MIB)
    assert driver.inventory().volumes.keys() == {name for _, name in made}
    driver.cleanup()


@pytest.mark.failure_mode("State", "room that was freed and is still counted")
@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_what_is_deleted_can_be_promised_in_the_next_moment(store, kit, mounted, ctx, kind):
    place = mounted(kind)
    driver = kit.file_driver(place / "v")
    manager = kit.manager(store, kit.FakeDrivers(local=driver))
    size = free(place) * 6 // 10 // MIB * MIB
    for _ in range(2):
        assert manager.create_volume(ctx, "a", size, backend="local").size == size
        write(place / "v" / "volumes" / "a", size)
        manager.delete_volume(ctx, "a")
        assert manager.records.volumes("local") == []
    driver.cleanup()


@pytest.mark.root
def test_a_clone_of_a_volume_needs_room_for_all_of_it(store, kit, mounted, ctx):
    place = mounted("xfs")
    driver = kit.file_driver(place / "v")
    manager = kit.manager(store, kit.FakeDrivers(local=driver))
    manager.create_volume(ctx, "a", 40 * MIB, backend="local")
    write(place / "v" / "volumes" / "a", 40 * MIB)
    left = [driver.room().limit - manager.records.provisioned("local")]
    for name in ("b", "c"):
        manager.create_volume(ctx, name, source="a")
        left.append(driver.room().limit - manager.records.provisioned("local"))
    assert left[0] - left[1] == pytest.approx(40 * MIB, abs=MIB)
    assert left[1] - left[2] == pytest.approx(40 * MIB, abs=MIB)
    driver.cleanup()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_the_database_has_a_reserve_where_it_is_on_the_same_disk(kit, mounted, ctx, kind):
    place = mounted(kind)
    driver = kit.file_driver(place / "v", reserve="0B")
    with_store = Store.open(place / "state" / "ostler.db", synchronous="NORMAL")
    with_store.migrate("volume", "ostler_volume.migrations")
    manager = kit.manager(with_store, kit.FakeDrivers(local=driver), state_reserve="50MiB")
    room = driver.room()
    limit = manager._context.limit("local", driver)
    assert room.limit - limit == pytest.approx(50 * MIB, abs=12 * MIB)
    assert manager.capabilities()["local"]["promise_limit_bytes"] == pytest.approx(limit, abs=12 * MIB)
    assert (place / "state" / "ostler.spare").stat().st_size == 8 * MIB
    with_store.close()
    driver.cleanup()


def seen(filesystem="8:1", factor=1.0, written=0, unrecorded=0):
    return BackendMeasurement(filesystem, factor, written, unrecorded)


@pytest.fixture
def claims(manager, ctx):
    """Return what backend `a` loses to `b`, of which 100 MiB are promised."""
    records = manager.records
    records.adopt("x", "b", 100 * MIB, {})

    def measure(a, b):
        records.backends.record_measurement("a", a)
        records.backends.record_measurement("b", b)
        return records.provisioned("a") / MIB

    return measure


def test_only_what_is_promised_and_not_written_is_taken_from_a_neighbour(claims):
    assert claims(seen(), seen()) == 100
    assert claims(seen(), seen(written=40 * MIB)) == 60
    assert claims(seen(), seen(written=400 * MIB)) == 0
    assert claims(seen(), seen(unrecorded=7 * MIB)) == 107
    assert claims(seen(), seen("8:2")) == 0
    assert claims(seen(""), seen("")) == 0


def test_promises_of_an_oversubscribed_neighbour_count_in_full_for_a_strict_one(claims):
    assert claims(seen(), seen(factor=2.0)) == 100
    assert claims(seen(factor=2.0), seen(factor=2.0)) == 100  # 50 MiB of the disk, and 100 of what may be promised
    assert claims(seen(factor=4.0), seen(factor=2.0)) == 200


def test_a_neighbour_of_another_service_counts_as_well(store, kit, manager):
    other = kit.manager(store, kit.FakeDrivers(), topic="archive")
    other.records.adopt("x", "b", 100 * MIB, {"s": MIB})
    other.records.backends.record_measurement("b", seen())
    manager.records.backends.record_measurement("local", seen())
    assert manager.records.provisioned("local") == 101 * MIB
    assert manager.records.promised("local") == 0


def test_what_is_deleted_counts_as_written_until_the_next_look(claims, manager):
    manager.records.adopt("y", "b", 50 * MIB, {})
    assert claims(seen(), seen(written=100 * MIB)) == 50
    manager.records.delete_volume("y")
    assert manager.records.provisioned("a") == 50 * MIB
    assert claims(seen(), seen(written=100 * MIB)) == 0


def test_a_backend_that_left_the_configuration_is_measured_by_nobody(claims, manager):
    assert claims(seen(), seen(written=100 * MIB)) == 0
    manager.init_host(1, False)
    assert manager.records.provisioned("a") == 100 * MIB


def test_a_measure_that_cannot_be_noted_hides_no_backend(manager, monkeypatch):
    def full(*_args):
        raise StoreUnavailable("the database cannot grow")

    monkeypatch.setattr(manager.records.backends, "record_measurement", full)
    assert manager.capabilities()["local"]["free_bytes"] > 0


def test_nothing_is_promised_on_a_full_disk_however_often_it_may_be(folder, kit):
    driver = kit.file_driver(folder, reserve="8EB", oversubscription=100.0)
    assert driver.room().limit == 0
    driver.cleanup()


def test_a_change_of_one_backend_is_told_of_all_on_its_file_system(manager, client, claims):
    claims(seen(), seen())
    manager.records.backends.record_measurement("c", seen("8:2"))
    client.changes.clear()
    manager.records.delete_volume("x")
    assert sorted(backend for backend, *_ in client.changes) == ["a", "b"]


def test_files_without_a_record_of_a_backend_that_is_gone_are_measured_by_nobody(claims, manager):
    assert claims(seen(), seen(unrecorded=50 * MIB)) == 150
    manager.init_host(1, False)
    assert manager.records.provisioned("a") == 100 * MIB


def test_a_refusal_says_what_others_have_of_the_room(manager, claims, ctx, driver):
    claims(seen(), seen(driver.room().filesystem))
    with pytest.raises(NoCapacity, match="100MiB promised on other backends of its file system"):
        manager.create_volume(ctx, "huge", "7EiB", backend="local")
