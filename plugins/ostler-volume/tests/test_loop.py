from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ostler_volume import loop
from ostler_volume.errors import DeviceBusy, NotSupported

MIB = 2**20
pytestmark = pytest.mark.root


@pytest.fixture
def volume(root, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(4 * MIB))
    yield path
    for device in loop.attached({"a": path}).values():
        subprocess.run(["losetup", "-d", device], check=True)


def nothing():
    pass


def test_a_file_becomes_a_device_and_back(volume):
    assert loop.attached({"a": volume}) == {}
    device = loop.attach(volume)
    assert loop.attached({"a": volume, "b": volume.with_name("b")}) == {"a": device}
    assert Path(device).read_bytes() == volume.read_bytes()
    with Path(device).open("r+b") as opened:
        opened.write(b"through the device")
        os.fsync(opened.fileno())
    assert volume.read_bytes().startswith(b"through the device")
    loop.detach(device, nothing)
    loop.detach(device, nothing)
    assert loop.attached({"a": volume}) == {}


def test_an_open_device_is_busy_and_stays_when_it_is_closed(volume):
    device = loop.attach(volume)
    with Path(device).open("rb"), pytest.raises(DeviceBusy, match="mounted or open"):
        loop.detach(device, nothing, wait=0.1)
    # The kernel had said yes and meant "later"; that was taken back.
    assert loop.attached({"a": volume}) == {"a": device}
    loop.detach(device, nothing)
    assert loop.attached({"a": volume}) == {}


def test_a_mounted_device_is_busy(volume, mkfs, tmp_path):
    mkfs("ext4", volume, "-F")
    device, place = loop.attach(volume), tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", device, str(place)], check=True)
    try:
        with pytest.raises(DeviceBusy):
            loop.detach(device, nothing, wait=0)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    loop.detach(device, nothing)


def test_waiting_for_a_device_can_be_stopped(volume):
    device = loop.attach(volume)

    def stop():
        raise KeyError

    with Path(device).open("rb"), pytest.raises(KeyError):
        loop.detach(device, stop, wait=60)


def test_a_file_is_known_by_its_inode_when_its_path_is_another(volume, tmp_path):
    device = loop.attach(volume)
    os.link(volume, tmp_path / "other")
    assert loop.attached({"b": tmp_path / "other"}) == {"b": device}


def test_a_file_that_is_deleted_after_it_was_listed_is_no_device(volume, tmp_path):
    device = loop.attach(volume)
    assert loop.attached({"gone": tmp_path / "gone"}) == {}
    loop.detach(device, nothing)


def test_a_machine_without_loop_devices_is_told_what_to_enable(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CONTROL", tmp_path / "loop-control")
    assert "No such file" in loop.usable()
    with pytest.raises(NotSupported, match=r"ostler.service.d/attach.conf"):
        loop.check_usable()
    with pytest.raises(NotSupported, match=r"ostler.service.d/attach.conf"):
        loop.attach(volume)


def test_a_user_without_privileges_is_told_what_to_enable(volume):
    os.seteuid(65534)
    try:
        with pytest.raises(NotSupported, match="Permission denied"):
            loop.check_usable()
    finally:
        os.seteuid(0)
    loop.check_usable()


@pytest.mark.root
def test_trap_a_file_that_was_removed_under_its_device_is_attached_still(root, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(4096))
    device = loop.attach(path)
    try:
        path.unlink()
        assert loop.attached({"a": path}) == {"a": device}
        path.write_bytes(bytes(4096))
        assert loop.attached({"a": path}) == {}
    finally:
        loop.detach(device, lambda: None)
