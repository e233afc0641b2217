"""What a file system says of itself: which one it is, where it is mounted, and which blocks files have for themselves.

On a file system with reflinks `st_blocks` counts a block in each file that shares it. Only the map of the extents
(FIEMAP) tells how much is really written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

FS_IOC_FIEMAP = 0xC020660B
BTRFS_IOC_FS_INFO = 0x8400941F
BTRFS_IOC_SYNC = 0x9408
_BTRFS_FSID = slice(16, 32)
_HEAD = struct.Struct("=QQIIII")  # struct fiemap: start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQ16xI12x")  # struct fiemap_extent: logical, physical, length, flags
_EXTENTS_AT_ONCE = 512
_LAST, _NO_ADDRESS, _SHARED = 0x1, 0x2 | 0x4, 0x2000
_SHARED_FOR = 10.0
"""Seconds after which what files share is looked at again."""
_IMAGES_LIMIT = 1000
"""How many images are looked at for blocks that volumes share with them."""


def filesystem_id(path: str | os.PathLike[str]) -> str:
    """Return what is the same for two directories of this host exactly when they share free room.

    Raises:
        OSError: The directory is not there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Each subvolume of btrfs has a device number of its own.
        info = bytearray(1024)
        fcntl.ioctl(descriptor, BTRFS_IOC_FS_INFO, info)
        return f"btrfs:{info[_BTRFS_FSID].hex()}"
    except OSError:
        device = os.fstat(descriptor).st_dev
        return f"{os.major(device)}:{os.minor(device)}"
    finally:
        os.close(descriptor)


def free_now(descriptor: int) -> None:
    """Have the blocks of files that were deleted counted as free at once: btrfs does so every 30 s by itself.

    Args:
        descriptor: Of any directory of the file system.
    """
    with suppress(OSError):  # another file system, which needs no such thing
        fcntl.ioctl(descriptor, BTRFS_IOC_SYNC)


@contextmanager
def emptied(path: Path) -> Iterator[None]:
    """Free the blocks of a file when the block has removed its last name: XFS does so in the background by itself."""
    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield
    finally:
        if descriptor >= 0:
            with suppress(OSError):
                if not os.fstat(descriptor).st_nlink:  # somebody's copy by a hard link stays as it is
                    os.ftruncate(descriptor, 0)
            os.close(descriptor)


def mount_point(path: Path) -> str:
    """Return the nearest directory at or above `path` that is a mount point; `/` when there is none between."""
    resolved = Path(os.path.realpath(path))
    return str(next((each for each in (resolved, *resolved.parents) if each.is_mount()), Path("/")))


class Mapped(NamedTuple):
    """The blocks of a file: bytes that it has for itself, and the places of those that it shares (start, end, …)."""

    exclusive: int
    shared: array[int]


def mapped(path: Path) -> Mapped | None:
    """Return the blocks of a file, None where the file system cannot tell.

    Raises:
        OSError: The file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        exclusive, shared = 0, array("Q")
        for physical, length, flags in _extents(descriptor):
            if flags & _SHARED and not flags & _NO_ADDRESS:
                shared.extend((physical, physical + length))
            else:
                exclusive += length
        return Mapped(exclusive, shared)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADR}:
            return None
        raise
    finally:
        os.close(descriptor)


def _extents(descriptor: int) -> Iterator[tuple[int, int, int]]:
    at = 0
    while True:
        buffer = bytearray(_HEAD.size + _EXTENTS_AT_ONCE * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, at, 2**64 - 1 - at, 0, 0, _EXTENTS_AT_ONCE, 0)
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        flags = _LAST
        for number in range(count):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            at = logical + length
            yield physical, length, flags
        if flags & _LAST:
            return


class WrittenBytes:
    """Counts what files take up together, each block once. Not safe on several threads at once.

    The map of a file is read again only when the file has changed. What another file shares with it changes without a
    sign in the file itself: whoever copies says so with `forget_shared`, and what is shared is read again now and then,
    because some file systems give blocks back a while after a file was deleted.

    Args:
        now: Returns the monotonic time.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._known: dict[int, tuple[tuple[int, ...], Mapped]] = {}
        self._now = now
        self._read = now()

    def forget_shared(self, source: int = -1) -> None:
        """Read again the maps of files that share blocks, and that of the inode `source`, which was copied."""
        self._read = self._now()
        self._known = {inode: one for inode, one in self._known.items() if inode != source and not one[1].shared}

    def count(self, files: Mapping[Path, os.stat_result], images: Iterable[Path]) -> int | None:
        """Return the bytes that would be free for the files again if all of them were deleted, None if unknown.

        A block that a file shares with an image, or with anything else that is none of `files`, is not theirs: the
        first write to it needs a new one.

        Args:
            files: The files, as they were seen last.
            images: Files that share blocks with them and are not counted.
        """
        if self._now() - self._read > _SHARED_FOR:
            self.forget_shared()
        known = {}
        for path, status in files.items():
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)
            cached = self._known.get(status.st_ino)
            if cached is None or cached[0] != stamp:
                try:
                    found = mapped(path)
                except FileNotFoundError:
                    continue
                if found is None:
                    return None
                cached = stamp, found
            known[status.st_ino] = cached
        self._known = known
        shared = [one.shared for _, one in known.values() if one.shared]
        exclusive = sum(one.exclusive for _, one in known.values())
        return exclusive + (_shared_by_several(shared, images) if shared else 0)


def _shared_by_several(ours: Iterable[array[int]], images: Iterable[Path]) -> int:
    events: list[tuple[int, int, int]] = []
    for owner, places in enumerate((ours, _image_places(images))):
        for ranges in places:
            for start, end in zip(ranges[::2], ranges[1::2], strict=True):
                events += (start, 1, owner), (end, -1, owner)
    events.sort()
    depth, total, before = [0, 0], 0, 0
    for at, change, owner in events:
        if depth[0] > 1 and not depth[1]:
            total += at - before
        before = at
        depth[owner] += change
    return total


def _image_places(images: Iterable[Path]) -> Iterator[array[int]]:
    for path in islice(images, _IMAGES_LIMIT):
        try:
            found = mapped(path)
        except OSError:
            continue
        if found is not None:
            yield found.shared


def regular_files(directory: Path) -> Iterator[Path]:
    """Yield the regular files below a directory; nothing when something else is mounted there, which may hang."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    if f" {directory.parent.resolve() / directory.name} " in mounts:
        return
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except OSError:
                continue
