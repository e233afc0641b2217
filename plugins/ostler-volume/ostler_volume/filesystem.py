"""Queries file systems: which one it is, where it is mounted, and which blocks files do not share.

On a file system with reflinks `st_blocks` counts a block in each file that shares it. Only the map of the extents
(FIEMAP) shows how much is really used.
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
_FIEMAP_HEADER = struct.Struct("=QQIIII")  # struct fiemap: start, length, flags, mapped, count, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")  # struct fiemap_extent: logical, physical, length, flags
_EXTENTS_PER_CALL = 512
_LAST, _NO_ADDRESS, _SHARED = 0x1, 0x2 | 0x4, 0x2000
_SHARED_MAP_LIFETIME = 10.0
"""Seconds after which the shared blocks of files are read again."""
_MAX_IMAGES = 1000
"""Maximum number of images that are checked for blocks shared with volumes."""


def filesystem_id(path: str | os.PathLike[str]) -> str:
    """Return an id that is equal for two directories of this host if and only if they share free space.

    Raises:
        OSError: The directory does not exist.
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


def sync_freed_blocks(descriptor: int) -> None:
    """Make the blocks of deleted files count as free at once; btrfs would do that only every 30 s.

    Args:
        descriptor: A descriptor of any directory of the file system.
    """
    with suppress(OSError):  # another file system, which does not need this
        fcntl.ioctl(descriptor, BTRFS_IOC_SYNC)


@contextmanager
def truncate_when_unlinked(path: Path) -> Iterator[None]:
    """Free the blocks of a file if the block has removed its last name; XFS would do that in the background."""
    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield
    finally:
        if descriptor >= 0:
            with suppress(OSError):
                if not os.fstat(descriptor).st_nlink:  # a hard link of somebody else must not change
                    os.ftruncate(descriptor, 0)
            os.close(descriptor)


def mount_point(path: Path) -> str:
    """Return the nearest directory at or above `path` that is a mount point."""
    resolved = Path(os.path.realpath(path))
    return str(next((each for each in (resolved, *resolved.parents) if each.is_mount()), Path("/")))


class BlockMap(NamedTuple):
    """The blocks of a file: bytes that it does not share, and the ranges that it shares (start, end, …)."""

    exclusive: int
    shared: array[int]


def read_block_map(path: Path) -> BlockMap | None:
    """Return the blocks of a file, None if the file system does not support that.

    Raises:
        OSError: The file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        exclusive, shared = 0, array("Q")
        for physical, length, flags in _physical_extents(descriptor):
            if flags & _SHARED and not flags & _NO_ADDRESS:
                shared.extend((physical, physical + length))
            else:
                exclusive += length
        return BlockMap(exclusive, shared)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADR}:
            return None
        raise
    finally:
        os.close(descriptor)


def _physical_extents(descriptor: int) -> Iterator[tuple[int, int, int]]:
    at = 0
    while True:
        buffer = bytearray(_FIEMAP_HEADER.size + _EXTENTS_PER_CALL * _FIEMAP_EXTENT.size)
        _FIEMAP_HEADER.pack_into(buffer, 0, at, 2**64 - 1 - at, 0, 0, _EXTENTS_PER_CALL, 0)
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, buffer)
        count = _FIEMAP_HEADER.unpack_from(buffer)[3]
        flags = _LAST
        for number in range(count):
            logical, physical, length, flags = _FIEMAP_EXTENT.unpack_from(
                buffer, _FIEMAP_HEADER.size + number * _FIEMAP_EXTENT.size
            )
            at = logical + length
            yield physical, length, flags
        if flags & _LAST:
            return


class BlockCounter:
    """Counts the space that files use together, each block once. Not thread-safe.

    The map of a file is read again only if the file has changed. The blocks that it shares change without a visible
    change of the file itself: code that copies calls `forget_shared`, and shared blocks are read again periodically,
    because some file systems free blocks some time after a file was deleted.

    Args:
        now: Returns the monotonic time.
        read_map: Returns the blocks of a file, None if the file system does not support that.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        read_map: Callable[[Path], BlockMap | None] = read_block_map,
    ) -> None:
        self._maps: dict[int, tuple[tuple[int, ...], BlockMap]] = {}
        self._now = now
        self._read_map = read_map
        self._shared_read_at = now()

    def forget_shared(self, source: int = -1) -> None:
        """Read again the maps of files that share blocks, and that of the inode `source`, which was copied."""
        self._shared_read_at = self._now()
        self._maps = {inode: one for inode, one in self._maps.items() if inode != source and not one[1].shared}

    def count(self, files: Mapping[Path, os.stat_result], images: Iterable[Path]) -> int | None:
        """Return the bytes that would be free if all the files were deleted, None if unknown.

        A block that a file shares with an image, or with anything else that is not in `files`, does not count: the
        first write to it needs a new one.

        Args:
            files: The files and their last status.
            images: Files that share blocks with them and do not count.
        """
        if self._now() - self._shared_read_at > _SHARED_MAP_LIFETIME:
            self.forget_shared()
        known = {}
        for path, status in files.items():
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)
            cached = self._maps.get(status.st_ino)
            if cached is None or cached[0] != stamp:
                try:
                    found = self._read_map(path)
                except FileNotFoundError:
                    continue
                if found is None:
                    return None
                cached = stamp, found
            known[status.st_ino] = cached
        self._maps = known
        shared = [one.shared for _, one in known.values() if one.shared]
        exclusive = sum(one.exclusive for _, one in known.values())
        return exclusive + (_shared_bytes(shared, images) if shared else 0)


def _shared_bytes(ours: Iterable[array[int]], images: Iterable[Path]) -> int:
    events: list[tuple[int, int, int]] = []
    for owner, places in enumerate((ours, _shared_image_blocks(images))):
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


def _shared_image_blocks(images: Iterable[Path]) -> Iterator[array[int]]:
    for path in islice(images, _MAX_IMAGES):
        try:
            found = read_block_map(path)
        except OSError:
            continue
        if found is not None:
            yield found.shared


def regular_files(directory: Path) -> Iterator[Path]:
    """Yield the regular files below a directory; nothing if another file system is mounted there, which may hang."""
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
