"""A disk with nothing left: what gives room back needs none."""

from __future__ import annotations

import os

import pytest

from ostler import NoCapacity

MIB = 2**20
pytestmark = pytest.mark.root
FILE_SYSTEMS = pytest.mark.parametrize(("kind", "size"), [("ext4", 48 * MIB), ("xfs", 320 * MIB), ("btrfs", 160 * MIB)])


def fill(place, name="filler"):
    """Take all that is left, to the last block and as far as that goes to the last inode."""
    try:
        with (place / name).open("wb", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while True:
                        file.write(os.urandom(size))
                except OSError:
                    continue
        for number in range(20_000):
            (place / f"{name}-{number}").write_bytes(b"x" * 100)
    except OSError:
        pass
    os.sync()


@pytest.fixture
def backend(mounted, kit, store):
    """Make a backend on a small disk of a kind; call it again for the next start of the service."""
    started = []

    def start(place):
        if started:
            started.pop().cleanup()
        driver = kit.file_driver(place / "v", kv=store.kv("driver/volume/local"), oversubscription=100.0)
        started.append(driver)
        manager = kit.manager(store, kit.FakeDrivers(local=driver))
        manager.init_host(1, False)
        manager.driver_ready("local")
        return manager

    yield start
    for driver in started:
        driver.cleanup()


@pytest.mark.failure_mode("State", "a full disk that something has to be deleted on")
@FILE_SYSTEMS
def test_what_a_crash_left_is_cleared_from_the_disk_that_it_has_filled(mounted, backend, ctx, kind, size):
    place = mounted(kind, size)
    manager = backend(place)
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    leftovers = [place / "v" / "volumes" / ".b.partial", place / "v" / "snapshots" / ".a@s.partial"]
    leftovers[1].write_bytes(bytes(4096))
    fill(place / "v" / "volumes", ".b.partial")
    fill(place)
    assert leftovers[0].stat().st_size > MIB
    manager = backend(place)
    assert not any(each.exists() for each in leftovers)
    assert manager.records.volume("a").state == "available"
    assert manager.create_volume(ctx, "c", "1MiB", backend="local").state == "available"


@pytest.mark.failure_mode("State", "a full disk that something has to be deleted on")
@FILE_SYSTEMS
def test_volumes_and_snapshots_are_deleted_at_0_bytes_free(mounted, backend, ctx, kind, size):
    place = mounted(kind, size)
    manager = backend(place)
    for name in ("a", "b", "c"):
        manager.create_volume(ctx, name, "1MiB", backend="local")
        with (place / "v" / "volumes" / name).open("r+b") as file:
            file.write(os.urandom(MIB))
    manager.create_snapshot(ctx, "a", "s")
    os.sync()
    fill(place)
    with pytest.raises(NoCapacity):
        manager.create_volume(ctx, "d", "4MiB", backend="local")
    manager.delete_snapshot(ctx, "a", "s")
    fill(place, "again")
    manager.delete_volume(ctx, "a")
    fill(place, "and-again")
    manager = backend(place)  # a start in between
    manager.delete_volume(ctx, "b")
    assert [one.name for one in manager.records.volumes()] == ["c"]
    assert sorted(path.name for path in (place / "v" / "volumes").iterdir()) == ["c"]


def test_a_directory_without_its_lock_and_identity_is_used_on_a_full_disk(mounted, kit, store, ctx):
    place = mounted("xfs")
    volumes = place / "v" / "volumes"
    volumes.mkdir(parents=True)
    (volumes / "a").write_bytes(os.urandom(4 * MIB))
    fill(place)
    driver = kit.file_driver(place / "v")
    with pytest.raises(Exception, match="is in use by another backend or daemon"):
        kit.file_driver(place / "v")
    manager = kit.manager(store, kit.FakeDrivers(local=driver))
    manager.manage_volume(ctx, "a")
    manager.delete_volume(ctx, "a")
    for path in place.glob("filler*"):
        path.unlink()
    assert driver.is_working()
    assert driver.directory.identity
    driver.cleanup()
