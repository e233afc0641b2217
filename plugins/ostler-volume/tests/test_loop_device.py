from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ostler_volume import loop_device
from ostler_volume.errors import DeviceBusy, NotSupported

MIB = 2**20
pytestmark = pytest.mark.root


@pytest.fixture
def volume(root, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(4 * MIB))
    yield path
    for device in loop_device.attached_devices({"a": path}).values():
        subprocess.run(["losetup", "-d", device], check=True)


def nothing():
    pass


def test_a_file_becomes_a_device_and_back(volume):
    assert loop_device.attached_devices({"a": volume}) == {}
    device = loop_device.attach(volume)
    assert loop_device.attached_devices({"a": volume, "b": volume.with_name("b")}) == {"a": device}
    assert Path(device).read_bytes() == volume.read_bytes()
    with Path(device).open("r+b") as opened:
        opened.write(b"through the device")
        os.fsync(opened.fileno())
    assert volume.read_bytes().startswith(b"through the device")
    loop_device.detach(device, nothing)
    loop_device.detach(device, nothing)
    assert loop_device.attached_devices({"a": volume}) == {}


def test_an_open_device_is_busy_and_stays_when_it_is_closed(volume):
    device = loop_device.attach(volume)
    with Path(device).open("rb"), pytest.raises(DeviceBusy, match="mounted or open"):
        loop_device.detach(device, nothing, wait=0.1)
    # The kernel had said yes and meant "later"; that was cancelled.
    assert loop_device.attached_devices({"a": volume}) == {"a": device}
    loop_device.detach(device, nothing)
    assert loop_device.attached_devices({"a": volume}) == {}


def test_a_mounted_device_is_busy(volume, mkfs, tmp_path):
    mkfs("ext4", volume, "-F")
    device, place = loop_device.attach(volume), tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", device, str(place)], check=True)
    try:
        with pytest.raises(DeviceBusy):
            loop_device.detach(device, nothing, wait=0)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    loop_device.detach(device, nothing)


def test_waiting_for_a_device_can_be_stopped(volume):
    device = loop_device.attach(volume)

    def stop():
        raise KeyError

    with Path(device).open("rb"), pytest.raises(KeyError):
        loop_device.detach(device, stop, wait=60)


def test_a_file_is_known_by_its_inode_when_its_path_is_another(volume, tmp_path):
    device = loop_device.attach(volume)
    os.link(volume, tmp_path / "other")
    assert loop_device.attached_devices({"b": tmp_path / "other"}) == {"b": device}


def test_a_file_that_is_deleted_after_it_was_listed_is_no_device(volume, tmp_path):
    device = loop_device.attach(volume)
    assert loop_device.attached_devices({"gone": tmp_path / "gone"}) == {}
    loop_device.detach(device, nothing)


def test_a_machine_without_loop_devices_is_told_what_to_enable(volume, tmp_path):
    missing = tmp_path / "loop-control"
    assert "No such file" in loop_device.unusable_reason(missing)
    with pytest.raises(NotSupported, match=r"ostler.service.d/attach.conf"):
        loop_device.check_usable(missing)
    with pytest.raises(NotSupported, match=r"ostler.service.d/attach.conf"):
        loop_device.attach(volume, missing)


def test_a_user_without_privileges_is_told_what_to_enable(volume):
    os.seteuid(65534)
    try:
        with pytest.raises(NotSupported, match="Permission denied"):
            loop_device.check_usable()
    finally:
        os.seteuid(0)
    loop_device.check_usable()


@pytest.mark.root
def test_a_file_that_was_removed_under_its_device_is_attached_still(root, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(4096))
    device = loop_device.attach(path)
    try:
        path.unlink()
        assert loop_device.attached_devices({"a": path}) == {"a": device}
        path.write_bytes(bytes(4096))
        assert loop_device.attached_devices({"a": path}) == {}
    finally:
        loop_device.detach(device, lambda: None)
