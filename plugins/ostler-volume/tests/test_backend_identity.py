from __future__ import annotations

import errno
import subprocess

import pytest

from ostler import DriverError, StoreUnavailable
from ostler_volume.backend_identity import (
    IDENTITY_FILE,
    IDENTITY_KEY,
    RECORDS_KEY,
    BackendIdentity,
    identity_from,
    read_id,
    write_id,
)

MIB = 2**20


@pytest.fixture
def kv(kit):
    return kit.FakeKeyValue()


@pytest.fixture
def used(folder, kit, kv):
    """A backend that has been used, with a volume recorded on it, and that is stopped now."""
    driver = kit.file_driver(folder, kv=kv)
    kv.set(RECORDS_KEY, True)
    (folder / "volumes" / "a").write_bytes(bytes(MIB))
    driver.cleanup()
    return driver


def test_a_directory_is_given_an_identity_at_first_use_that_is_remembered(folder, kit, kv):
    driver = kit.file_driver(folder, kv=kv)
    assert len(read_id(folder)) == 32
    assert identity_from(kv.get(IDENTITY_KEY)).id == read_id(folder) == driver.directory.identity
    assert (folder / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
    driver.cleanup()
    again = kit.file_driver(folder, kv=kv)
    assert again.directory.identity == driver.directory.identity
    again.cleanup()


def test_an_identity_that_is_there_is_taken_over_by_who_knows_none(used, folder, kit):
    other = kit.FakeKeyValue()
    driver = kit.file_driver(folder, kv=other)
    assert identity_from(other.get(IDENTITY_KEY)).id == read_id(folder)
    driver.cleanup()


@pytest.mark.parametrize("value", [None, "x", {}, {"id": 7}])
def test_what_is_no_identity_is_none(value):
    assert identity_from(value) is None


def test_an_identity_is_kept_as_json():
    assert identity_from(BackendIdentity("x", "/mnt").to_json()) == BackendIdentity("x", "/mnt")
    assert identity_from({"id": "x"}) == BackendIdentity("x", "/")


def _emptied(folder):
    folder.rename(folder.with_name("old"))
    folder.mkdir()


def _gone(folder):
    folder.rename(folder.with_name("old"))


def _another(folder):
    (folder / IDENTITY_FILE).unlink()
    write_id(folder)


def _without_file(folder):
    (folder / IDENTITY_FILE).unlink()


def _without_volumes(folder):
    (folder / "volumes").rename(folder.parent / "old")


@pytest.mark.failure_mode("State", "a disk that is not mounted, or another directory in its place")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_emptied, "the directory is empty"),
        (_gone, "the directory does not exist"),
        (_another, "it has the identity"),
        (_without_file, f"the file {IDENTITY_FILE} is missing"),
        (_without_volumes, "the directory of its volumes is missing"),
    ],
)
def test_a_directory_that_is_another_backend_is_refused_and_left_as_it_is(used, folder, kit, kv, change, why):
    change(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(DriverError, match="not the backend it was") as caught:
        kit.file_driver(folder, kv=kv)
    assert why in caught.value.message
    assert "accept-backend local" in caught.value.hint
    assert sorted(folder.rglob("*")) == before


def test_without_records_another_directory_may_take_its_place(used, folder, kit, kv):
    kv.set(RECORDS_KEY, False)
    _emptied(folder)
    driver = kit.file_driver(folder, kv=kv)
    assert identity_from(kv.get(IDENTITY_KEY)).id == read_id(folder)
    driver.cleanup()


def test_a_folder_that_is_back_while_the_daemon_runs_is_used_again(folder, kit):
    driver = kit.file_driver(folder)
    away = folder.with_name("away")
    folder.rename(away)
    for _ in range(2):
        with pytest.raises(DriverError, match="not the backend it was"):
            driver.inventory()
        folder.mkdir(exist_ok=True)
    folder.rmdir()
    (away / ".lock").unlink()  # as on a disk that is mounted again: another inode, or another device
    away.rename(folder)
    assert driver.is_working()
    assert driver.inventory().volumes == {}
    driver.cleanup()


def test_an_identity_that_cannot_be_kept_now_is_kept_later(folder, kit, kv):
    error = StoreUnavailable("full")

    class Full(type(kv)):
        def set(self, key, value):
            if self.get("full"):
                raise error
            super().set(key, value)

    kv = Full(full=True)
    driver = kit.file_driver(folder, kv=kv)
    assert IDENTITY_KEY not in kv
    kv["full"] = False
    assert driver.is_working()
    assert identity_from(kv.get(IDENTITY_KEY)).id == read_id(folder)
    driver.cleanup()


def test_a_disk_that_is_full_at_the_first_start_gets_its_identity_later(folder, kit, kv, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ostler_volume.file_driver.write_id", full)  # test_full_disk.py has a disk that is, as root
        driver = kit.file_driver(folder, kv=kv)
    assert not read_id(folder)
    assert driver.is_working()
    assert read_id(folder) == identity_from(kv.get(IDENTITY_KEY)).id
    driver.cleanup()


@pytest.mark.failure_mode("State", "a disk that is not mounted, or another directory in its place")
@pytest.mark.root
@pytest.mark.parametrize("below", ["", "deeper/volumes"])
@pytest.mark.parametrize("records", [True, False])
def test_a_disk_that_is_not_mounted_fails_the_backend_until_it_is(mounted, kit, kv, tmp_path, below, records):
    place = mounted("ext4", 16 * MIB)
    path = place / below
    driver = kit.file_driver(path, kv=kv)
    kv.set(RECORDS_KEY, records)
    driver.cleanup()
    subprocess.run(["umount", str(place)], check=True)
    try:
        with pytest.raises(DriverError, match=f"{place} is not mounted"):
            kit.file_driver(path, kv=kv)
        assert list(place.iterdir()) == []
        if not records:
            driver = kit.file_driver(path, kv=kit.FakeKeyValue(kv), mounted=False)
            driver.cleanup()
    finally:
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "ext4.img"), str(place)], check=True)
    driver = kit.file_driver(path, kv=kv)
    assert driver.is_working()
    driver.cleanup()


@pytest.mark.failure_mode("State", "a disk that is not mounted, or another directory in its place")
@pytest.mark.root
def test_a_disk_that_became_read_only_is_no_backend_that_works(mounted, kit, monkeypatch):
    place = mounted("ext4", 16 * MIB)
    driver = kit.file_driver(place)
    driver.cleanup()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    # What holds the lock open for writing forbids the remount.
    monkeypatch.setattr(driver.directory, "check", lambda: None)
    with pytest.raises(DriverError, match="read-only"):
        driver.is_working()
