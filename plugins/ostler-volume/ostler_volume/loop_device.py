"""Loop devices: attaches files as block devices with system calls, without external tools."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ostler_volume.errors import DeviceBusy, NotSupported

LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82
AUTOCLEAR = 4

_LOOP_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")  # struct loop_info64
_LOOP_CONFIG = struct.Struct(f"=II{_LOOP_INFO.size}s64s")  # struct loop_config
LOOP_CONTROL = Path("/dev/loop-control")
"""The device that creates loop devices."""
_SYS_BLOCK = Path("/sys/block")
_HINT = "enable the drop-in ostler.service.d/attach.conf, which allows access to loop devices, or run it as root"
_MAX_ATTEMPTS = 16
_DELETED_SUFFIX = " (deleted)"
_CLOSE_TIMEOUT = 2.0


def unusable_reason(control: Path = LOOP_CONTROL) -> str:
    """Return why loop devices cannot be created here with this control device, empty if they can."""
    try:
        os.close(os.open(control, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{control}: {error.strerror}"
    return ""


def check_usable(control: Path = LOOP_CONTROL) -> None:
    """Raise if loop devices cannot be created here with this control device.

    Raises:
        NotSupported: This machine or the sandbox does not allow it.
    """
    if why := unusable_reason(control):
        raise NotSupported(f"cannot attach volumes on this host: {why}", hint=_HINT)


def attach(path: Path, control: Path = LOOP_CONTROL) -> str:
    """Attach a file to a loop device and return the path of the device.

    Args:
        path: The file.
        control: The device that creates loop devices.

    Raises:
        NotSupported: This machine or the sandbox does not allow it.
    """
    try:
        with _open_device(control) as creator, _open_device(path) as backing:
            for _ in range(_MAX_ATTEMPTS):
                number = fcntl.ioctl(creator, LOOP_CTL_GET_FREE)
                # Another process may take the free device first: then try another.
                if _configure(Path(f"/dev/loop{number}"), backing, path):
                    return f"/dev/loop{number}"
    except OSError as error:
        raise NotSupported(
            f"cannot attach {path.name}: {error.filename or 'loop device'}: {error.strerror}", hint=_HINT
        ) from None
    raise NotSupported(f"cannot attach {path.name}: other processes took all free loop devices", hint="try again")


def detach(device: str, check: Callable[[], None], *, wait: float = _CLOSE_TIMEOUT) -> None:
    """Detach a loop device; one that is already detached is not an error.

    Args:
        device: The path of the device.
        check: Called while waiting; stops it by raising.
        wait: Seconds to wait for processes that open it briefly, as udev does at each change.

    Raises:
        DeviceBusy: It is mounted, or open in a process; it stays attached.
        NotSupported: This machine or the sandbox does not allow it.
    """
    until = time.monotonic() + wait
    while not _try_detach(device):
        check()
        if time.monotonic() >= until:
            raise DeviceBusy(
                f"{device} is mounted or open", hint=f"unmount it; `fuser -v {device}` shows which process uses it"
            )
        time.sleep(0.05)


def attached_devices(files: Mapping[str, Path]) -> dict[str, str]:
    """Return which of the files are loop devices now: the key of the file to the path of the device.

    A file that was removed while attached is still included.
    """
    places = {os.path.realpath(path): key for key, path in files.items()}
    nodes: dict[tuple[int, int], str] = {}
    found: dict[str, str] = {}
    for backing in _SYS_BLOCK.glob("loop[0-9]*/loop/backing_file"):
        device = f"/dev/{backing.parts[-3]}"
        try:
            name = backing.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
        except OSError:  # removed meanwhile
            continue
        key = places.get(name)
        if key is None and name.endswith(_DELETED_SUFFIX):
            # The file was removed while attached. A new file with its name is a different one.
            key = places.get(name.removesuffix(_DELETED_SUFFIX))
            key = None if key is not None and files[key].exists() else key
        if key is None:
            # The kernel's path may belong to another mount namespace; the inode is the same in all of them.
            nodes = nodes or {node: key for key, path in files.items() if (node := _inode(path)) is not None}
            key = nodes.get(_backing_inode(device))
        if key is not None:
            found[key] = device
    return found


class _open_device:  # noqa: N801 - reads as a function
    def __init__(self, path: Path, flags: int = os.O_RDWR) -> None:
        self._path, self._flags = path, flags
        self._descriptor = -1

    def __enter__(self) -> int:
        self._descriptor = os.open(self._path, self._flags | os.O_CLOEXEC)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _configure(device: Path, backing: int, path: Path) -> bool:
    name = os.fsencode(path)[:63]
    info = _LOOP_INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, name, b"", b"", 0, 0)
    try:
        with _open_device(device) as descriptor:
            fcntl.ioctl(descriptor, LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing, 0, info, b""))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _try_detach(device: str) -> bool:
    """Try once; return False if the device is in use and was not changed."""
    if not _in_use(device):
        return True
    try:
        # O_EXCL fails on a block device that is mounted or part of another device.
        with _open_device(Path(device), os.O_RDWR | os.O_EXCL) as descriptor:
            fcntl.ioctl(descriptor, LOOP_CLR_FD)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return True
        raise NotSupported(f"cannot detach {device}: {error.strerror}", hint=_HINT) from None
    if not _in_use(device):
        return True
    # The kernel has accepted it for the time when the last process closes the device. Undo that, or a device that is
    # reported as attached would disappear later.
    return _clear_autoclear(device)


def _clear_autoclear(device: str) -> bool:
    try:
        with _open_device(Path(device)) as descriptor:
            raw = bytearray(_LOOP_INFO.size)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, raw)
            fields = list(_LOOP_INFO.unpack(raw))
            fields[8] &= ~AUTOCLEAR
            fcntl.ioctl(descriptor, LOOP_SET_STATUS64, _LOOP_INFO.pack(*fields))
    except OSError as error:
        if error.errno == errno.ENXIO:  # closed by the other process just now, and gone
            return True
        raise NotSupported(f"cannot detach {device}: {error.strerror}", hint=_HINT) from None
    return False


def _in_use(device: str) -> bool:
    return (_SYS_BLOCK / Path(device).name / "loop" / "backing_file").exists()


def _inode(path: Path) -> tuple[int, int] | None:
    """Return the inode of a path; None for a file that has been deleted since it was listed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _backing_inode(device: str) -> tuple[int, int]:
    try:
        with _open_device(Path(device), os.O_RDONLY) as descriptor:
            raw = bytearray(_LOOP_INFO.size)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, raw)
    except OSError:
        return -1, -1
    fields = _LOOP_INFO.unpack(raw)
    return fields[0], fields[1]
