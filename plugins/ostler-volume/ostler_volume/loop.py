"""Loop devices: a file as a block device, by the kernel's own calls, so that no tool is needed."""

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

_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")  # struct loop_info64
_CONFIG = struct.Struct(f"=II{_INFO.size}s64s")  # struct loop_config
_CONTROL = Path("/dev/loop-control")
_SYS = Path("/sys/block")
_HINT = "enable the drop-in ostler.service.d/attach.conf, which gives the daemon the loop devices, or run it as root"
_TRIES = 16
_DELETED = " (deleted)"
_CLOSE_WAIT = 2.0


def usable() -> str:
    """Return why loop devices cannot be made here, empty when they can."""
    try:
        os.close(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{_CONTROL}: {error.strerror}"
    return ""


def check_usable() -> None:
    """Raise when loop devices cannot be made here.

    Raises:
        NotSupported: This machine or the sandbox does not let the daemon.
    """
    if why := usable():
        raise NotSupported(f"volumes cannot be attached here: {why}", hint=_HINT)


def attach(path: Path) -> str:
    """Make a loop device of a file and return its path.

    Raises:
        NotSupported: This machine or the sandbox does not let the daemon.
    """
    try:
        with _opened(_CONTROL) as control, _opened(path) as backing:
            for _ in range(_TRIES):
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                # Somebody else may take the free one before us: then there is another.
                if _configure(Path(f"/dev/loop{number}"), backing, path):
                    return f"/dev/loop{number}"
    except OSError as error:
        raise NotSupported(
            f"{path.name} cannot be attached: {error.filename or 'loop device'}: {error.strerror}", hint=_HINT
        ) from None
    raise NotSupported(f"{path.name} cannot be attached: every free loop device was taken by others", hint="try again")


def detach(device: str, check: Callable[[], None], *, wait: float = _CLOSE_WAIT) -> None:
    """Take a loop device away; that it is away already is no error.

    Args:
        device: The path of the device.
        check: Called while waiting; stops it by raising.
        wait: How many seconds to wait for those that only have a short look, as udev does at each change.

    Raises:
        DeviceBusy: It is mounted, or open in some process; it stays.
        NotSupported: This machine or the sandbox does not let the daemon.
    """
    until = time.monotonic() + wait
    while not _clear(device):
        check()
        if time.monotonic() >= until:
            raise DeviceBusy(f"{device} is mounted or open", hint=f"unmount it; `fuser -v {device}` shows who has it")
        time.sleep(0.05)


def attached(files: Mapping[str, Path]) -> dict[str, str]:
    """Return which of the files are loop devices now: the key of the file to the path of the device.

    A file that is missing is one still when it was removed under its device.
    """
    places = {os.path.realpath(path): key for key, path in files.items()}
    nodes: dict[tuple[int, int], str] = {}
    found: dict[str, str] = {}
    for backing in _SYS.glob("loop[0-9]*/loop/backing_file"):
        device = f"/dev/{backing.parts[-3]}"
        try:
            name = backing.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
        except OSError:  # it went while we looked
            continue
        key = places.get(name)
        if key is None and name.endswith(_DELETED):
            # The file was removed under its device. One that has come into its place since is another.
            key = places.get(name.removesuffix(_DELETED))
            key = None if key is not None and files[key].exists() else key
        if key is None:
            # The kernel's path may be of another mount namespace; the inode is the same everywhere.
            nodes = nodes or {node: key for key, path in files.items() if (node := _node(path)) is not None}
            key = nodes.get(_backing_node(device))
        if key is not None:
            found[key] = device
    return found


class _opened:  # noqa: N801 - reads as a function
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
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, name, b"", b"", 0, 0)
    try:
        with _opened(device) as descriptor:
            fcntl.ioctl(descriptor, LOOP_CONFIGURE, _CONFIG.pack(backing, 0, info, b""))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _clear(device: str) -> bool:
    """Try once; return False when somebody has the device, which is then as it was."""
    if not _in_use(device):
        return True
    try:
        # O_EXCL on a block device asks whether it is mounted or part of another device.
        with _opened(Path(device), os.O_RDWR | os.O_EXCL) as descriptor:
            fcntl.ioctl(descriptor, LOOP_CLR_FD)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return True
        raise NotSupported(f"{device} cannot be detached: {error.strerror}", hint=_HINT) from None
    if not _in_use(device):
        return True
    # The kernel said yes and means "when the last process closes it". Take that back, or a device that is reported as
    # attached would vanish by itself later.
    return _keep(device)


def _keep(device: str) -> bool:
    try:
        with _opened(Path(device)) as descriptor:
            raw = bytearray(_INFO.size)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, raw)
            fields = list(_INFO.unpack(raw))
            fields[8] &= ~AUTOCLEAR
            fcntl.ioctl(descriptor, LOOP_SET_STATUS64, _INFO.pack(*fields))
    except OSError as error:
        if error.errno == errno.ENXIO:  # closed by the other in this very moment, and gone
            return True
        raise NotSupported(f"{device} cannot be detached: {error.strerror}", hint=_HINT) from None
    return False


def _in_use(device: str) -> bool:
    return (_SYS / Path(device).name / "loop" / "backing_file").exists()


def _node(path: Path) -> tuple[int, int] | None:
    """Return which inode a path names; None for a file that has been deleted since it was listed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _backing_node(device: str) -> tuple[int, int]:
    try:
        with _opened(Path(device), os.O_RDONLY) as descriptor:
            raw = bytearray(_INFO.size)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, raw)
    except OSError:
        return -1, -1
    fields = _INFO.unpack(raw)
    return fields[0], fields[1]
