from __future__ import annotations

import asyncio
import os
import threading

import pytest

from ostler import (
    Cancelled,
    Conflict,
    Context,
    DriverError,
    DriverNotReady,
    DriverState,
    DriverStuck,
    InvalidInput,
    NoCapacity,
    NotFound,
    ValidationContext,
)
from ostler_volume import copying, file_driver
from ostler_volume.driver import VolumeDriver
from ostler_volume.errors import (
    AlreadyExists,
    BadImage,
    BadName,
    BadSize,
    HasSnapshots,
    ImageNotResponding,
    UnknownBackend,
    WrongState,
)
from ostler_volume.file_driver import FileDriver
from ostler_volume.manager import VolumeManager

MIB = 2**20


def test_a_volume_is_made_listed_shown_and_deleted(manager, ctx, files, client):
    made = manager.create_volume(ctx, "a", "10MiB", backend="local")
    assert (made.name, made.size, made.state, made.backend, made.host) == ("a", 10 * MIB, "available", "local", "node1")
    assert asyncio.run(manager.list_volumes(ctx)) == [made]
    assert asyncio.run(manager.get_volume(ctx, "a")) == made
    assert files() == ["volumes/a"]
    manager.delete_volume(ctx, "a")
    assert asyncio.run(manager.list_volumes(ctx)) == []
    assert files() == []
    assert [event for event, _ in client.events] == ["created", "deleted"]


def test_a_volume_can_be_made_of_an_image_a_volume_and_a_snapshot(manager, ctx, image, folder):
    manager.create_volume(ctx, "gold", "4MiB", image=str(image))
    snapshot = manager.create_snapshot(ctx, "gold", "v1")
    assert (snapshot.volume, snapshot.name, snapshot.state, snapshot.size) == ("gold", "v1", "available", 4 * MIB)
    clone = manager.create_volume(ctx, "clone", "5MiB", source="gold")
    again = manager.create_volume(ctx, "again", snapshot="gold@v1")
    assert (clone.source, again.source) == ("volume:gold", "snapshot:gold@v1")
    assert (clone.size, again.size) == (5 * MIB, 4 * MIB)
    for name in ("gold", "clone", "again"):
        assert (folder / "volumes" / name).read_bytes().startswith(image.read_bytes())
    assert asyncio.run(manager.list_snapshots(ctx, "gold")) == asyncio.run(manager.list_snapshots(ctx)) == [snapshot]
    with pytest.raises(NotFound):
        asyncio.run(manager.list_snapshots(ctx, "nobody"))


def test_a_snapshot_can_be_named_alone_when_one_volume_has_it(manager, ctx, nothing_left):
    for name in ("a", "b"):
        manager.create_volume(ctx, name, "1MiB")
        manager.create_snapshot(ctx, name, "daily")
    manager.create_snapshot(ctx, "b", "weekly")
    with nothing_left(InvalidInput, "a@daily on node1 or b@daily on node1", "VOLUME@NAME"):
        manager.create_volume(ctx, "c", snapshot="daily")
    with nothing_left(NotFound, "snapshot yearly not found"):
        manager.create_volume(ctx, "c", snapshot="yearly")
    assert manager.create_volume(ctx, "c", snapshot="weekly").source == "snapshot:b@weekly"


def test_without_a_size_a_volume_is_as_large_as_its_image_in_whole_sectors(manager, ctx, image):
    with image.open("ab") as file:
        file.write(b"x")
    assert manager.create_volume(ctx, "a", image=str(image)).size == 3 * MIB + 512


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "x" * 64])
def test_a_bad_name_is_refused_at_the_door(manager, ctx, nothing_left, name):
    with nothing_left(BadName, "name"):
        manager.create_volume(ctx, name, "1MiB")


@pytest.mark.parametrize("size", [-1, 0, "ten", "", "-5GiB", 2**63])
def test_a_bad_size_is_refused_at_the_door(manager, ctx, nothing_left, size):
    with nothing_left(BadSize):
        manager.create_volume(ctx, "a", size)


@pytest.mark.parametrize("backend", ["", "local"])
def test_more_than_there_is_room_is_refused_at_the_door(manager, ctx, nothing_left, backend):
    with nothing_left(NoCapacity, "local", "can still be promised"):
        manager.create_volume(ctx, "a", "4EiB", backend=backend)


def test_what_is_promised_counts_and_not_what_is_used(store, ctx, folder, kit):
    driver = kit.file_driver(folder, oversubscription=2.0)
    manager = kit.manager(store, kit.FakeDrivers(local=driver))
    half = driver.room().limit // 2 - 64 * MIB  # the machine's disk is used by others meanwhile
    manager.create_volume(ctx, "a", half, backend="local")
    manager.create_volume(ctx, "b", half, backend="local")
    with pytest.raises(NoCapacity):
        manager.create_volume(ctx, "c", half, backend="local")
    facts = manager.capabilities()["local"]
    assert (facts["volumes"], facts["allocated_bytes"]) == (2, 0)
    assert facts["provisioned_bytes"] == 2 * (-(-half // 512) * 512)
    driver.cleanup()


def test_a_bad_image_is_refused_at_the_door(manager, ctx, nothing_left, image, tmp_path):
    with nothing_left(BadImage, "No such file"):
        manager.create_volume(ctx, "a", "1MiB", image=str(tmp_path / "missing"))
    with nothing_left(BadImage, "is a directory"):
        manager.create_volume(ctx, "a", "1MiB", image=str(tmp_path))
    with nothing_left(BadImage, "absolute"):
        manager.create_volume(ctx, "a", "1MiB", image="image.raw")
    with nothing_left(BadImage, "3MiB", "larger than 1MiB"):
        manager.create_volume(ctx, "a", "1MiB", image=str(image))


def test_a_bad_source_is_refused_at_the_door(manager, ctx, nothing_left, image):
    manager.create_volume(ctx, "gold", "4MiB")
    manager.create_snapshot(ctx, "gold", "v1")
    with nothing_left(NotFound, "volume nobody not found"):
        manager.create_volume(ctx, "a", "4MiB", source="nobody")
    with nothing_left(NotFound, "snapshot gold@v2 not found"):
        manager.create_volume(ctx, "a", "4MiB", snapshot="gold@v2")
    with nothing_left(BadSize, "larger than 1MiB"):
        manager.create_volume(ctx, "a", "1MiB", source="gold")
    with nothing_left(InvalidInput, "one origin"):
        manager.create_volume(ctx, "a", "4MiB", source="gold", image=str(image))
    with nothing_left(InvalidInput, "on the backend local"):
        manager.create_volume(ctx, "a", "4MiB", source="gold", backend="other")


def test_a_name_that_is_taken_is_refused_before_anything_else(manager, ctx, nothing_left, client):
    manager.create_volume(ctx, "a", "1MiB")
    client.calls.clear()
    with nothing_left(AlreadyExists, "volume a already exists"):
        manager.create_volume(ctx, "a", "1MiB")
    assert client.calls == []  # and no room was asked of the scheduler for it


def test_a_backend_that_is_unknown_or_not_ready_is_refused_by_name(manager, ctx, drivers, nothing_left):
    with nothing_left(UnknownBackend, "backend tape not found", "local"):
        manager.create_volume(ctx, "a", "1MiB", backend="tape")
    drivers.states["local"], drivers.whys["local"] = DriverState.FAILED, "the disk is gone"
    with nothing_left(DriverNotReady, "local is failed", "the disk is gone"):
        manager.create_volume(ctx, "a", "1MiB", backend="local")


def test_a_volume_of_a_backend_that_left_the_configuration_is_shown_and_left_alone(manager, ctx, drivers):
    manager.create_volume(ctx, "a", "1MiB")
    del drivers["local"]
    assert asyncio.run(manager.get_volume(ctx, "a")).backend == "local"
    with pytest.raises(UnknownBackend):
        manager.delete_volume(ctx, "a")
    assert asyncio.run(manager.get_volume(ctx, "a")).state == "available"


def test_extend_refuses_what_is_not_more(manager, ctx, nothing_left):
    manager.create_volume(ctx, "a", "2MiB")
    for size, error in (("1MiB", BadSize), ("2MiB", BadSize), (-1, BadSize), ("ten", BadSize), ("4EiB", NoCapacity)):
        with nothing_left(error):
            manager.extend_volume(ctx, "a", size)
    assert manager.extend_volume(ctx, "a", "3MiB").size == 3 * MIB


def test_delete_refuses_snapshots_and_volumes_in_use(manager, ctx, nothing_left, driver):
    manager.create_volume(ctx, "a", "1MiB")
    manager.create_snapshot(ctx, "a", "s")
    with nothing_left(HasSnapshots, "has 1 snapshot"):
        manager.delete_volume(ctx, "a")
    with nothing_left(AlreadyExists):
        manager.create_snapshot(ctx, "a", "s")
    manager.delete_snapshot(ctx, "a", "s")
    driver.check_attach = lambda: None
    driver.attach = lambda _ctx, _name: "/dev/loop99"
    assert manager.attach_volume(ctx, "a").device == "/dev/loop99"
    with nothing_left(WrongState, "a is in-use"):
        manager.delete_volume(ctx, "a")
    with nothing_left(WrongState, "a is in-use"):
        manager.attach_volume(ctx, "a")
    with nothing_left(WrongState, "a is in-use"):
        manager.extend_volume(ctx, "a", "2MiB")
    with nothing_left(WrongState, "a is in-use"):
        manager.create_volume(ctx, "b", "1MiB", source="a")
    assert manager.detach_volume(ctx, "a").state == "available"
    with nothing_left(WrongState, "a is available"):
        manager.detach_volume(ctx, "a")


def test_attach_without_the_privileges_is_refused_by_name_with_the_drop_in(
    manager, ctx, driver, nothing_left, tmp_path
):
    driver.loop_control = tmp_path / "loop-control"
    manager.create_volume(ctx, "a", "1MiB")
    with nothing_left(Exception, "cannot attach volumes on this host", "ostler.service.d/attach.conf"):
        manager.attach_volume(ctx, "a")
    facts = manager.capabilities()["local"]
    assert "attach" not in facts["features"]
    assert facts["attach_refused"]


@pytest.fixture
def slow_copy(monkeypatch):
    monkeypatch.setattr(file_driver, "reflink", lambda *_: False)  # the file system may be one that shares blocks


def test_a_long_copy_shows_progress_and_cancel_leaves_no_file_and_no_record(manager, tmp_path, nothing_left, slow_copy):
    source = tmp_path / "big"
    source.write_bytes(os.urandom(20 * MIB))
    told = []

    def on_progress(how_far):
        told.append(how_far)
        if how_far.done >= 8 * MIB:
            ctx.cancel()

    ctx = Context("volume", "create_volume", on_progress=on_progress)
    with nothing_left(Cancelled):
        manager.create_volume(ctx, "a", "20MiB", image=str(source))
    assert [how_far.total for how_far in told] == [20 * MIB] * len(told)
    assert told[-1].text == "copying"


def test_a_cancel_whose_clean_up_fails_is_an_error_with_why_and_finished_later(
    manager, driver, tmp_path, slow_copy, files
):
    source = tmp_path / "big"
    source.write_bytes(os.urandom(8 * MIB))
    ctx = Context("volume", "create_volume", on_progress=lambda how_far: how_far.done and ctx.cancel())
    discard = driver.discard

    def broken(_name):
        raise DriverError("the disk does not answer")

    driver.discard = broken
    with pytest.raises(Cancelled):
        manager.create_volume(ctx, "a", "8MiB", image=str(source))
    volume = manager.records.volume("a")
    assert (volume.state, volume.fault) == ("error", "creating")
    assert "was cancelled" in volume.why
    assert "the disk does not answer" in volume.why
    driver.discard = discard
    manager.check(Context("volume", "check"))
    assert manager.records.volumes() == []
    assert files() == []


def test_a_driver_that_is_stuck_leaves_an_error_that_is_repaired_when_it_comes_back(manager, driver, ctx):
    create, inventory = driver.create, driver.inventory

    def stuck(*arguments):
        create(*arguments)  # it does its work in the end, but nobody waits for it any more
        driver.inventory = refused
        raise DriverStuck("local has been stuck in create for 1min")

    def refused():
        raise DriverStuck("local is stuck")

    driver.create = stuck
    with pytest.raises(DriverStuck):
        manager.create_volume(ctx, "a", "1MiB", backend="local")
    volume = manager.records.volume("a")
    assert (volume.state, volume.fault) == ("error", "creating")
    driver.inventory = inventory
    manager.driver_ready("local")
    assert manager.records.volume("a").state == "available"


def test_a_delete_that_fails_is_an_error_with_why_and_can_be_tried_again(manager, driver, ctx, files):
    manager.create_volume(ctx, "a", "1MiB")
    delete = driver.delete

    def broken(_name):
        raise DriverError("a cannot be deleted: Input/output error")

    driver.delete = broken
    with pytest.raises(DriverError):
        manager.delete_volume(ctx, "a")
    volume = manager.records.volume("a")
    assert (volume.state, volume.fault) == ("error", "deleting")
    assert "Input/output error" in volume.why
    driver.delete = delete
    manager.delete_volume(ctx, "a")
    assert files() == []


def test_a_delete_that_the_driver_refuses_changes_nothing(manager, driver, ctx, nothing_left):
    manager.create_volume(ctx, "a", "1MiB")

    def refuse(_name):
        raise Conflict("a is in use by /dev/loop9")

    driver.delete = refuse
    with pytest.raises(Conflict):
        manager.delete_volume(ctx, "a")
    assert manager.records.volume("a").state == "available"


@pytest.mark.parametrize("kind", [DriverError, RuntimeError])
def test_an_extend_that_fails_ends_with_the_size_that_is_really_there(manager, driver, ctx, kind):
    manager.create_volume(ctx, "a", "1MiB")

    def broken(*_):
        raise kind("no")

    driver.extend = broken
    with pytest.raises(kind):
        manager.extend_volume(ctx, "a", "2MiB")
    volume = manager.records.volume("a")
    assert (volume.state, volume.size, volume.promised) == ("available", MIB, MIB)


def test_an_attach_that_fails_leaves_an_available_volume(manager, driver, ctx, nothing_left):
    manager.create_volume(ctx, "a", "1MiB")
    driver.check_attach = lambda: None

    def broken(*_):
        raise DriverError("no")

    driver.attach = broken
    with pytest.raises(DriverError):
        manager.attach_volume(ctx, "a")
    assert manager.records.volume("a").state == "available"


def test_of_two_requests_that_race_for_a_name_one_wins_and_the_file_is_its_own(manager, files):
    results, barrier = [], threading.Barrier(6)

    def race(size):
        barrier.wait()
        try:
            results.append(manager.create_volume(Context("volume", "t"), "a", size * MIB, backend="local").size)
        except Conflict:
            results.append(0)

    threads = [threading.Thread(target=race, args=(size,)) for size in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [size for size in results if size]
    assert len(won) == 1
    assert manager.records.volume("a").size == won[0]
    assert files() == ["volumes/a"]


def test_of_two_requests_that_race_for_a_volume_one_wins(manager, ctx):
    for _ in range(10):
        manager.create_volume(ctx, "a", "1MiB")
        results, barrier = [], threading.Barrier(4)

        def race(barrier=barrier, results=results):
            barrier.wait()
            try:
                manager.delete_volume(Context("volume", "t"), "a")
                results.append("deleted")
            except (Conflict, NotFound):
                results.append("refused")

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["deleted", "refused", "refused", "refused"]


def test_requests_and_checks_at_once_never_disturb_each_other(manager, caplog):
    """Reconciliation passes by what is being worked on, whatever the moment."""
    stop, errors = threading.Event(), []

    def check():
        while not stop.is_set():
            manager.driver_ready("local")

    def work(name):
        ctx = Context("volume", "t")
        try:
            for _ in range(8):
                manager.create_volume(ctx, name, "1MiB", backend="local")
                manager.extend_volume(ctx, name, "2MiB")
                manager.create_snapshot(ctx, name, "s")
                manager.create_volume(ctx, f"{name}-copy", source=name)
                manager.delete_snapshot(ctx, name, "s")
                manager.delete_volume(ctx, f"{name}-copy")
                manager.delete_volume(ctx, name)
        except Exception as error:
            errors.append(error)

    checker = threading.Thread(target=check)
    workers = [threading.Thread(target=work, args=(f"v{number}",)) for number in range(3)]
    for thread in (checker, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    checker.join()
    assert errors == []
    assert manager.records.volumes() == []
    assert [record.message for record in caplog.records if "was found" in record.message] == []


def test_capabilities_count_what_is_promised_and_hide_no_other_backend(store, drivers, ctx, kit, tmp_path):
    drivers["second"] = kit.file_driver(tmp_path / "second", "second")
    manager = kit.manager(store, drivers)
    manager.create_volume(ctx, "a", "1MiB", backend="local")
    manager.create_snapshot(ctx, "a", "s")

    def broken():
        raise DriverError("no answer")

    drivers["second"].capabilities = broken
    facts = manager.capabilities()
    assert list(facts) == ["local"]
    local = facts["local"]
    assert (local["provisioned_bytes"], local["volumes"], local["snapshots"]) == (2 * MIB, 1, 1)
    assert (local["unknown_files"], local["unknown"]) == (0, [])
    drivers["second"].cleanup()


def test_a_service_works_while_a_backend_is_ready(manager, drivers, kit, store):
    assert manager.is_working() is True
    drivers.states["local"] = DriverState.STUCK
    with pytest.raises(DriverNotReady, match="local is stuck"):
        manager.is_working()
    with pytest.raises(DriverNotReady, match="has no backend"):
        kit.manager(store, kit.FakeDrivers()).is_working()


def test_a_check_of_a_backend_that_fails_does_not_keep_the_others_from_theirs(manager, drivers, driver, ctx, caplog):
    def broken():
        raise DriverError("no answer")

    driver.inventory = broken
    manager.check(ctx)
    assert "no answer" in caplog.text


def test_the_contract_says_what_a_driver_must_do():
    assert {"create", "delete", "discard", "extend", "inventory", "room"} == VolumeDriver.__abstractmethods__


def test_a_scheduler_that_is_misspelt_is_found_before_the_start():
    options = VolumeManager.Options(manager="volume", scheduler="schedulr")
    others = ValidationContext(host="node1", topic="volume", services={"scheduler": options})
    assert list(VolumeManager.validate(options, others)) == [
        ("scheduler", 'no service on this host has the topic "schedulr"; did you mean "scheduler"?')
    ]
    for name in ("scheduler", "", "elsewhere"):
        assert list(VolumeManager.validate(options.model_copy(update={"scheduler": name}), others)) == []


def test_what_ends_work_and_frees_room_has_threads_of_its_own():
    short = {name for name in dir(VolumeManager) if getattr(exposure(VolumeManager, name), "short", False)}
    assert short == {
        "attach_volume", "cancel_upload", "delete_snapshot", "delete_volume", "detach_volume", "image_directories"
    }  # fmt: skip
    leave = {name for name in dir(FileDriver) if budget(FileDriver, name) == ("copy_budget", False)}
    assert leave == {"delete", "delete_snapshot", "discard"}


def exposure(kind, name):
    return getattr(getattr(kind, name), "__ostler_exposed__", None)


def budget(kind, name):
    marks = (getattr(vars(each).get(name), "__ostler_budget__", None) for each in kind.__mro__)
    return next((mark for mark in marks if mark), None)


@pytest.mark.failure_mode("Plugins", "an image on a dead mount")
def test_an_image_that_hangs_fails_its_volume_and_leaves_nothing(
    manager, ctx, driver, folder, nothing_left, monkeypatch
):
    gate = threading.Event()
    image = folder / "images" / "a.raw"
    image.write_bytes(b"x" * MIB)
    monkeypatch.setattr(driver, "options", driver.options.model_copy(update={"image_timeout": 0.05}))
    monkeypatch.setattr(copying, "read_piece", lambda *_: gate.wait(10))  # no file system that hangs can be mounted
    with nothing_left(ImageNotResponding, f"reading the image {image} hangs"):
        manager.create_volume(ctx, "b", backend="local", image=str(image))
    manager.create_volume(ctx, "c", MIB, backend="local")
    # An attempt is made again when the time-out has passed since the last one.
    monkeypatch.setattr(driver, "options", driver.options.model_copy(update={"image_timeout": 60}))
    with nothing_left(ImageNotResponding, "access to"):
        manager.create_volume(ctx, "d", backend="local", image=str(image))
    gate.set()
    manager.delete_volume(ctx, "c")


@pytest.mark.failure_mode("Plugins", "an image on a dead mount")
def test_the_choice_of_a_backend_for_an_image_waits_for_no_mount_that_hangs(manager, ctx, folder, monkeypatch):
    gate = threading.Event()
    (folder / "images" / "a.raw").write_bytes(b"x" * MIB)
    real = os.path.realpath
    # No file system that hangs can be mounted without privileges.
    monkeypatch.setattr(os.path, "realpath", lambda path: gate.wait(10) if path == str(folder.parent) else real(path))
    made = manager.create_volume(ctx, "b", image=str(folder / "images" / "a.raw"))
    assert made.size == MIB
    gate.set()
