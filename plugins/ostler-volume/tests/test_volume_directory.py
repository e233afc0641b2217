from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from ostler import DriverError, NoCapacity
from ostler_volume.errors import AlreadyExists
from ostler_volume.volume_directory import (
    IMAGES,
    SNAPSHOTS,
    VOLUMES,
    VolumeDirectory,
    make_private_directory,
    translate_os_errors,
)


@pytest.fixture
def opened(folder):
    made = VolumeDirectory(folder)
    made.open(mounted=False)
    yield made
    made.close()


def test_a_missing_folder_is_made_for_its_owner_alone(opened, folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {".lock", VOLUMES, SNAPSHOTS, IMAGES}


def test_no_mode_comes_from_the_umask_and_what_others_could_write_is_closed(tmp_path):
    before = os.umask(0)
    try:
        first = VolumeDirectory(tmp_path / "a" / "b")
        first.open(mounted=False)
        first.close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o755, "b": 0o700, VOLUMES: 0o700, SNAPSHOTS: 0o700, IMAGES: 0o700, ".lock": 0o600}
    (tmp_path / "a" / "b" / VOLUMES).chmod(0o777)
    first.open(mounted=False)
    first.close()
    assert stat.S_IMODE((tmp_path / "a" / "b" / VOLUMES).stat().st_mode) == 0o755


@pytest.mark.parametrize("made", [os.mkfifo, Path.touch])
def test_what_is_no_directory_keeps_its_mode(tmp_path, made):
    path = tmp_path / "null"
    made(path)
    path.chmod(0o666)
    with pytest.raises(DriverError, match=r"cannot use the directory .*/null: Not a directory"):
        VolumeDirectory(path).open(mounted=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_directory_that_all_users_share_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(DriverError, match="is shared by all users"):
        VolumeDirectory(tmp_path).open(mounted=False)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    assert not list(tmp_path.iterdir())


def test_a_folder_serves_one_backend_only(opened, folder):
    with pytest.raises(DriverError, match="is in use by another backend or daemon"):
        VolumeDirectory(folder).open(mounted=False)
    opened.open(mounted=False)  # but itself again
    opened.close()
    opened.close()
    second = VolumeDirectory(folder)
    second.open(mounted=False)
    second.close()


def test_a_folder_that_must_be_mounted_and_is_not_is_refused(folder):
    with pytest.raises(DriverError, match="is not mounted"):
        VolumeDirectory(folder).open(mounted=True)
    assert not folder.exists()


def test_a_path_that_is_a_file_is_said_by_name(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DriverError, match="file"):
        VolumeDirectory(tmp_path / "file").open(mounted=False)


def test_a_folder_that_was_swapped_is_noticed(opened, folder):
    opened.check()
    folder.rename(folder.with_name("old"))
    with pytest.raises(DriverError, match="cannot use"):
        opened.check()
    other = VolumeDirectory(folder)
    other.open(mounted=False)
    with pytest.raises(DriverError, match="the directory was replaced"):
        opened.check()
    other.close()
    opened.close()
    with pytest.raises(DriverError, match="not open"):
        opened.check()


@pytest.mark.root
def test_a_file_system_that_has_become_read_only_is_noticed(mounted):
    place = mounted("ext4", 16 * 2**20)
    folder = VolumeDirectory(place)
    folder.check_writable()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(DriverError, match="is on a read-only file system"):
        folder.check_writable()


def test_a_file_is_there_whole_with_its_mode(opened, folder):
    opened.make(SNAPSHOTS, "a@b", lambda descriptor: os.ftruncate(descriptor, 4096), mode=0o400)
    found, partials = opened.list_files(SNAPSHOTS)
    assert found["a@b"].size == 4096
    assert partials == set()
    assert stat.S_IMODE((folder / SNAPSHOTS / "a@b").stat().st_mode) == 0o400


def test_a_file_that_fails_leaves_nothing(opened):
    def fill(descriptor):
        os.write(descriptor, b"x")
        raise DriverError("no")

    with pytest.raises(DriverError):
        opened.make(VOLUMES, "a", fill)
    assert opened.list_files(VOLUMES) == ({}, set())


def test_a_file_that_could_not_be_made_safe_is_not_there(opened, monkeypatch):
    def broken(_kind):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(opened, "sync", broken)
    with pytest.raises(OSError, match="Input/output"):
        opened.make(VOLUMES, "a", lambda _descriptor: None)
    assert opened.list_files(VOLUMES) == ({}, set())


def test_somebody_elses_file_is_never_replaced(opened, folder):
    (folder / VOLUMES / "a").write_text("precious")
    with pytest.raises(AlreadyExists):
        opened.make(VOLUMES, "a", lambda _descriptor: None)
    assert (folder / VOLUMES / "a").read_text() == "precious"


def test_an_old_partial_is_in_nobodys_way(opened, folder):
    opened.partial(VOLUMES, "a").write_text("left by a crash")
    assert opened.list_files(VOLUMES) == ({}, {"a"})
    opened.make(VOLUMES, "a", lambda descriptor: os.ftruncate(descriptor, 512))
    assert (folder / VOLUMES / "a").read_bytes() == bytes(512)
    opened.partial(VOLUMES, "b").write_text("left by a crash")
    opened.discard(VOLUMES, "b")
    opened.discard(VOLUMES, "b")
    opened.remove(VOLUMES, "a")
    opened.remove(VOLUMES, "a")
    assert opened.list_files(VOLUMES) == ({}, set())


def test_what_is_no_volume_is_not_listed(opened, folder):
    (folder / VOLUMES / "sub").mkdir()
    (folder / VOLUMES / "link").symlink_to("/etc/passwd")
    (folder / VOLUMES / ".hidden").write_text("x")
    assert opened.list_files(VOLUMES) == ({}, set())


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        (errno.ENOSPC, NoCapacity, "No space left"),
        (errno.EDQUOT, NoCapacity, "quota"),
        (errno.EACCES, DriverError, "Permission denied"),
        (errno.EIO, DriverError, "Input/output error"),
    ],
)
def test_errors_of_the_system_become_sentences(code, kind, word):
    with pytest.raises(kind, match=word) as caught, translate_os_errors("a cannot be made"):
        raise OSError(code, os.strerror(code), "/x")
    assert caught.value.message.startswith("a cannot be made: ")
    assert "/x" in caught.value.message


def test_a_read_only_folder_is_found_out_at_the_start(folder, monkeypatch):
    made = VolumeDirectory(folder)

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(os, "pwrite", refuse)  # nothing can be mounted read-only without privileges
    with pytest.raises(DriverError, match="Read-only file system"):
        made.open(mounted=False)
    made.close()


def test_a_copy_by_a_hard_link_outlives_what_is_removed(opened, folder, tmp_path):
    opened.make(VOLUMES, "a", lambda descriptor: os.write(descriptor, b"precious"))
    kept = tmp_path / "kept"
    kept.hardlink_to(folder / "volumes" / "a")
    opened.remove(VOLUMES, "a")
    assert not (folder / "volumes" / "a").exists()
    assert kept.read_bytes() == b"precious"
    opened.remove(VOLUMES, "a")


@pytest.mark.failure_mode("State", "two that take one name or make one directory at once")
def test_two_backends_that_start_side_by_side_make_the_directory_above_both(tmp_path, monkeypatch):
    above = tmp_path / "srv"
    exists = Path.exists

    def other_is_faster(path):
        there = exists(path)
        if path == above and not there:
            path.mkdir()
            return False
        return there

    monkeypatch.setattr(Path, "exists", other_is_faster)  # between two system calls of one function
    make_private_directory(above / "fast")
    assert (above / "fast").is_dir()
    assert (above / "fast").stat().st_mode & 0o777 == 0o700
