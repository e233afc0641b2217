from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from ostler.errors import StoreUnavailable
from ostler.store import Store
from ostler.store.sqlite_errors import is_disk_full
from ostler.store.sqlite_files.reserved_space import ReservedSpace, disable_shm_copy_on_write

KIB = 1024


@pytest.fixture
def spare(tmp_path):
    return ReservedSpace(tmp_path / "ostler.db", size=64 * KIB, step=16 * KIB)


def test_room_is_kept_and_given_step_by_step(spare):
    assert not spare.release()
    assert spare.refill()
    assert spare.refill()
    status = spare.path.stat()
    assert (status.st_size, status.st_mode & 0o777) == (64 * KIB, 0o600)
    assert status.st_blocks * 512 >= 64 * KIB
    assert spare.problems() == []
    sizes = []
    while spare.release():
        sizes.append(spare.path.stat().st_size // KIB if spare.path.exists() else 0)
    assert sizes == [48, 32, 16, 0]
    assert "was full: the database uses its reserved disk space, 0 KiB are left" in spare.problems()[0]
    assert spare.refill()
    assert spare.problems() == []
    assert spare.path.stat().st_size == 64 * KIB


def test_on_a_disk_without_plenty_of_room_none_is_kept(tmp_path):
    spare = ReservedSpace(tmp_path / "ostler.db", size=2**60)
    assert not spare.refill()
    assert not spare.path.exists()


def test_where_nothing_can_be_made_nothing_is_raised(tmp_path):
    spare = ReservedSpace(tmp_path / "gone" / "ostler.db")
    assert not spare.refill()
    (tmp_path / "ostler.spare").symlink_to(tmp_path / "target")
    there = ReservedSpace(tmp_path / "ostler.db", size=64 * KIB)
    assert not there.refill()
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (StoreUnavailable("x", reason="SQLITE_FULL"), True),
        (StoreUnavailable("x", reason="SQLITE_BUSY"), False),
        (StoreUnavailable("x"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_told_from_other_trouble(error, full):
    assert is_disk_full(error) is full


def test_a_full_disk_may_be_the_cause_of_an_error_at_the_start():
    error = StoreUnavailable("x")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_disk_full(error)


def test_nothing_is_made_where_a_file_is_overwritten_in_place(tmp_path):
    disable_shm_copy_on_write(tmp_path / "ostler.db")
    (tmp_path / "other.db-shm").write_bytes(b"left")
    disable_shm_copy_on_write(tmp_path / "other.db")
    assert (tmp_path / "other.db-shm").read_bytes() == b"left"


@pytest.fixture
def disk(tmp_path):
    """Make a small file system and mount it; return its folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    done = []

    def make(kind, size):
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"mkfs.{kind} is not installed")
        image, place = tmp_path / f"{kind}.img", tmp_path / kind
        with image.open("wb") as file:
            file.truncate(size)
        place.mkdir()
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        done.append(place)
        return place

    yield make
    for place in done:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    file = place / f"filler-{len(list(place.iterdir()))}"
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    os.sync()


@pytest.mark.failure_mode("State", "a full disk that something has to be deleted on")
@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_database_on_a_full_disk_can_write_what_gives_room_back(disk, kind):
    place = disk(kind, 400 * 2**20)
    store = Store.open(place / "state" / "ostler.db")
    assert store.keep_spare_room()
    kv = store.kv("test")
    for number in range(8):  # again and again somebody takes the room that is given
        fill(place)
        try:
            kv.set("key", f"{number}" * 50_000)
        except StoreUnavailable as error:
            refused = error
            kv.set("key", f"{number}" * 50_000)
        assert kv.get("key") == f"{number}" * 50_000
    assert is_disk_full(refused)
    store.close()
