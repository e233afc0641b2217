from __future__ import annotations

import os

import pytest

from ostler import Cancelled, Context, DriverError, EncodeError, InvalidInput, NoCapacity
from ostler.testing import run_driver
from ostler_volume import file_driver
from ostler_volume.driver import CLONE, IMAGE, SNAPSHOT
from ostler_volume.errors import AlreadyExists, BadImage, BadSize, VolumeNotFound
from ostler_volume.file_driver import FileDriver, FileDriverOptions, reserve_bytes
from ostler_volume.images import open_own_image

MIB = 2**20


@pytest.fixture(params=["thread", "process"])
def either(request, folder):
    """The driver as a service runs it, in threads and in a process of its own."""
    with run_driver(FileDriver, {"path": str(folder), "reserve": "0B"}, isolation=request.param) as running:
        yield running


def create_filled(driver, folder, ctx, image):
    """Create the volume `a` with the content of an image, however that may come into it."""
    driver.create(ctx, "a", 3 * MIB)
    (folder / "volumes" / "a").write_bytes(image.read_bytes())


def content(folder, name, kind="volumes"):
    return (folder / kind / name).read_bytes()


def test_a_volume_of_zeros_takes_no_room(either, folder, ctx):
    either.create(ctx, "a", 64 * MIB)
    found = either.inventory().volumes["a"]
    assert found == (64 * MIB, 0)
    assert not any(content(folder, "a"))


def test_a_volume_from_an_image_is_the_image_and_then_zeros(driver, folder, ctx, image):
    driver.create_from_image(ctx, "a", 4 * MIB, open_own_image(str(image)))
    assert content(folder, "a") == image.read_bytes() + bytes(MIB)
    assert driver.inventory().volumes["a"].allocated < 2 * MIB


def test_an_image_cannot_be_opened_for_a_driver_in_a_process_of_its_own(folder, image):
    options = {"path": str(folder), "reserve": "0B", "image_directories": [str(image.parent)]}
    refusal = pytest.raises(EncodeError, match=r"result of open_image .* Image is not data")
    with run_driver(FileDriver, options, isolation="process") as driver, refusal as refused:
        driver.open_image(str(image))
    assert "isolation" in refused.value.hint


def test_clones_and_snapshots_have_a_life_of_their_own(either, folder, ctx, image):
    create_filled(either, folder, ctx, image)
    either.create_snapshot(ctx, "a", "s")
    either.clone(ctx, "b", 5 * MIB, "a")
    with (folder / "volumes" / "a").open("r+b") as file:
        file.write(b"changed")
    either.create_from_snapshot(ctx, "c", 3 * MIB, "a", "s")
    before = image.read_bytes()
    assert content(folder, "b") == before + bytes(2 * MIB)
    assert content(folder, "c") == before == content(folder, "a@s", "snapshots")
    assert content(folder, "a").startswith(b"changed")
    either.delete("a")
    assert set(either.inventory().snapshots) == {"a@s"}
    either.delete_snapshot("a", "s")
    assert set(either.inventory().volumes) == {"b", "c"}


def test_extend_adds_zeros_and_never_takes_away(either, folder, ctx, image):
    create_filled(either, folder, ctx, image)
    either.extend(ctx, "a", 4 * MIB)
    assert content(folder, "a") == image.read_bytes() + bytes(MIB)
    with pytest.raises(BadSize):
        either.extend(ctx, "a", MIB)
    assert either.inventory().volumes["a"].size == 4 * MIB
    with pytest.raises(DriverError, match="No such file"):
        either.extend(ctx, "b", MIB)


def test_a_name_that_is_taken_is_refused(either, ctx):
    either.create(ctx, "a", MIB)
    with pytest.raises(AlreadyExists):
        either.create(ctx, "a", MIB)


def test_a_missing_source_is_said_by_name(either, ctx):
    with pytest.raises(VolumeNotFound, match="gone"):
        either.clone(ctx, "a", MIB, "gone")
    with pytest.raises(VolumeNotFound, match="gone"):
        either.attach(ctx, "gone")


def test_a_copy_that_is_cancelled_leaves_nothing(driver, files, tmp_path, monkeypatch):
    monkeypatch.setattr(file_driver, "reflink", lambda *_: False)  # so that there are pieces to stop between
    source = tmp_path / "image"
    source.write_bytes(os.urandom(12 * MIB))
    ctx = Context("volume", "create", on_progress=lambda how_far: how_far.done and ctx.cancel())
    with pytest.raises(Cancelled):
        driver.create_from_image(ctx, "a", 16 * MIB, open_own_image(str(source)))
    assert ctx.last_progress > 0
    assert files() == []


def test_room_leaves_the_reserve_and_what_others_use(folder, kit, ctx):
    driver = kit.file_driver(folder, reserve="1GiB", oversubscription=2.0)
    status = os.statvfs(folder)
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    room = driver.room()
    assert (room.total, room.reserved) == (total, 2**30)
    assert room.free == pytest.approx(free, abs=64 * MIB)
    assert room.limit == pytest.approx(2 * (free - 2**30), abs=128 * MIB)
    driver.cleanup()


def test_a_reserve_larger_than_the_disk_leaves_nothing_to_promise(folder, kit):
    driver = kit.file_driver(folder, reserve="8EB")
    assert driver.room().limit == 0
    driver.cleanup()


@pytest.mark.parametrize(
    ("text", "size"), [("5%", 50), ("12.5%", 125), ("0%", 0), ("100B", 100), ("1KiB", 1024), ("7", 7)]
)
def test_a_reserve_is_a_size_or_a_part(text, size):
    assert reserve_bytes(text, 1000) == size
    assert FileDriverOptions(driver="file", path="/x", reserve=text).reserve == text


@pytest.mark.parametrize("text", ["ten", "-5%", "-1", "5 lamps", "", "%", "1.2.3%"])
def test_a_wrong_reserve_is_found_by_the_configuration(text):
    with pytest.raises(ValueError, match="reserve"):
        FileDriverOptions(driver="file", path="/x", reserve=text)


def test_a_reserve_that_is_no_whole_number_of_bytes_is_said_by_the_driver():
    with pytest.raises(InvalidInput):
        reserve_bytes("1.5B", 1000)


def test_a_relative_path_is_found_by_the_configuration():
    with pytest.raises(ValueError, match="path"):
        FileDriverOptions(driver="file", path="volumes")


def test_capabilities_say_room_and_features(either, ctx):
    either.create(ctx, "a", MIB)
    facts = either.capabilities()
    assert {CLONE, SNAPSHOT} <= set(facts["features"])
    is_thread = either.proxy.options.isolation == "thread"
    assert (IMAGE in facts["features"]) is (IMAGE in either.proxy.features) is is_thread
    assert ("attach" in facts["features"]) == (not facts["attach_refused"])
    assert facts["reflink"] in (True, False)
    assert facts["free_bytes"] > 0
    assert facts["total_bytes"] >= facts["free_bytes"]
    assert (facts["reserved_bytes"], facts["allocated_bytes"], facts["oversubscription"]) == (0, 0, 1.0)


def test_a_driver_whose_folder_has_gone_says_so(either, folder):
    assert either.is_working() is True
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DriverError):
        either.is_working()


@pytest.mark.root
def test_a_disk_that_fills_up_is_no_capacity_and_leaves_nothing(mounted, kit, ctx, tmp_path):
    place = mounted("ext4", 16 * MIB)
    driver = kit.file_driver(place / "volumes")
    source = tmp_path / "image"
    source.write_bytes(os.urandom(24 * MIB))
    with pytest.raises(NoCapacity, match="No space left"):
        driver.create_from_image(ctx, "a", 24 * MIB, open_own_image(str(source)))
    inventory = driver.inventory()
    assert (inventory.volumes, inventory.partials) == ({}, frozenset())
    driver.cleanup()


@pytest.mark.root
@pytest.mark.parametrize(("kind", "shares"), [("xfs", True), ("btrfs", True), ("ext4", False)])
def test_clones_are_equal_on_any_file_system_and_share_where_it_can(mounted, kit, ctx, kind, shares):
    place = mounted(kind)
    driver = kit.file_driver(place / "volumes", mounted=False)
    assert driver.capabilities()["reflink"] is shares
    data = os.urandom(24 * MIB)
    (place / "image").write_bytes(data)
    driver.create_from_image(ctx, "a", 32 * MIB, open_own_image(str(place / "image")))
    os.sync()
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    driver.create_snapshot(ctx, "a", "s")
    driver.clone(ctx, "b", 40 * MIB, "a")
    driver.create_from_snapshot(ctx, "c", 32 * MIB, "a", "s")
    os.sync()
    used = free - os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    assert (used < 8 * MIB) is shares
    for name, size in {"a": 32, "b": 40, "c": 32}.items():
        assert content(place / "volumes", name) == data + bytes((size - 24) * MIB)
    driver.cleanup()


def test_images_come_by_default_from_the_store_of_the_backend_and_nowhere_else(folder, kit, image, ctx):
    driver = kit.file_driver(folder, image_directories=[])
    assert driver.image_directories() == [str(folder / "images")]
    with pytest.raises(BadImage, match="is not in an image directory"):
        driver.open_image(str(image))
    image.rename(folder / "images" / "image.raw")
    with driver.open_image(str(folder / "images" / "image.raw")) as opened:
        driver.create_from_image(ctx, "a", 4 * MIB, opened)
    assert content(folder, "a").startswith(b"begin")
    driver.cleanup()


def test_what_is_handed_over_in_pieces_becomes_a_volume_at_the_end(either, folder, ctx):
    either.begin_upload(ctx, "a", 4 * MIB)
    either.write_upload("a", MIB, b"second" + bytes(10))
    either.write_upload("a", 0, b"first")
    either.write_upload("a", 0, b"first")
    assert either.inventory().volumes == {}
    assert either.inventory().partials == {"a"}
    either.finish_upload(ctx, "a")
    assert either.inventory().partials == frozenset()
    found = content(folder, "a")
    assert (found[:6], found[MIB : MIB + 6], len(found)) == (b"first\0", b"second", 4 * MIB)
    with pytest.raises(AlreadyExists):
        either.begin_upload(ctx, "a", MIB)
    either.begin_upload(ctx, "b", MIB)
    either.discard("b")
    with pytest.raises(DriverError, match="No such file"):
        either.write_upload("b", 0, b"late")
    assert set(either.inventory().volumes) == {"a"}
