from __future__ import annotations

import os
import subprocess

import pytest

from ostler.testing import FakeClock
from ostler_volume.filesystem import BlockCounter, filesystem_id, mount_point, read_block_map, regular_files

MIB = 2**20


def seen(*paths):
    return {path: path.lstat() for path in paths}


def filled(path, size, seed=b"x"):
    path.write_bytes(seed * size)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return path


def test_directories_of_one_file_system_have_one_id(tmp_path):
    (tmp_path / "a").mkdir()
    assert filesystem_id(tmp_path / "a") == filesystem_id(tmp_path)
    assert filesystem_id("/proc") != filesystem_id(tmp_path)
    with pytest.raises(FileNotFoundError):
        filesystem_id(tmp_path / "gone")


def test_the_nearest_mount_point_is_found_also_of_what_is_not_there(tmp_path):
    assert mount_point(tmp_path / "not" / "there") == mount_point(tmp_path)
    assert str(mount_point(tmp_path.parent / "proc")) != ""
    assert mount_point(type(tmp_path)("/proc/self")) == "/proc"


def test_images_are_found_below_directories_but_not_on_what_is_mounted_there(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/er/c"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert sorted(path.name for path in regular_files(tmp_path)) == ["a", "b", "c"]
    assert list(regular_files(type(tmp_path)("/proc"))) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_shared_blocks_are_counted_once_and_only_when_they_are_the_files_alone(mounted, kind, tmp_path):
    place = mounted(kind)
    clock = FakeClock()
    written = BlockCounter(clock.monotonic)
    a, b = filled(place / "a", 8 * MIB), filled(place / "b", 4 * MIB)
    assert written.count(seen(a, b), []) == 12 * MIB
    for name in ("c", "d"):
        subprocess.run(["cp", "--reflink=always", str(a), str(place / name)], check=True)
    written.forget_shared(a.lstat().st_ino)
    files = seen(a, b, place / "c", place / "d")
    os.sync()
    assert written.count(files, []) == 12 * MIB
    # One of them is an image: what the others share with it is not theirs.
    assert written.count(seen(a, b, place / "c"), [place / "d"]) == 4 * MIB
    (place / "c").unlink()
    (place / "d").unlink()
    subprocess.run(["umount", str(place)], check=True)  # XFS gives blocks back in the background
    subprocess.run(["mount", "-o", "loop", str(tmp_path / f"{kind}.img"), str(place)], check=True)
    clock.advance(11)
    assert written.count(seen(a, b), []) == 12 * MIB


@pytest.mark.root
def test_a_file_that_shares_with_a_stranger_has_nothing_there_for_itself(mounted):
    place = mounted("xfs")
    a = filled(place / "a", 8 * MIB)
    subprocess.run(["cp", "--reflink=always", str(a), str(place / "stranger")], check=True)
    assert BlockCounter().count(seen(a), []) == 0


def test_a_file_that_has_not_changed_is_not_mapped_again(tmp_path):
    a = filled(tmp_path / "a", MIB)
    calls = []

    def spy(path):
        calls.append(path)
        return read_block_map(path)

    written = BlockCounter(read_map=spy)
    files = seen(a)
    first = written.count(files, [])
    if first is None:
        pytest.skip("this file system cannot map its files")
    assert written.count(files, []) == first
    assert calls == [a]
    assert written.count({}, []) == 0


def test_a_file_system_that_cannot_map_its_files_is_told(tmp_path):
    a = filled(tmp_path / "a", MIB)
    assert BlockCounter(read_map=lambda _path: None).count(seen(a), []) is None


def test_a_file_that_went_meanwhile_counts_nothing(tmp_path):
    a = filled(tmp_path / "a", MIB)
    files = seen(a)
    a.unlink()
    assert BlockCounter().count(files, []) == 0
