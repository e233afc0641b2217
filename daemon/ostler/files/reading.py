"""Reading files that somebody else may have made: regular files only, and never more than is allowed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

_READ_SIZE = 1024 * 1024


class UnreadableFile(OSError):
    """Raised when a file is not one to be read: `strerror` says what it is, `status` has all that is known of it."""

    def __init__(self, reason: str, path: str | Path, status: os.stat_result | None = None) -> None:
        super().__init__(errno.EINVAL, reason, str(path))
        self.status = status


class FileContent(NamedTuple):
    """What a file holds, and its status when it was opened."""

    data: bytes
    status: os.stat_result


def open_regular(path: str | Path, *, dir_fd: int | None = None, follow: bool = True) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; return its descriptor and its status. Any thread; never waits for anybody.

    It is looked at before it is opened, by a descriptor that cannot come to mean another file: opening a pipe may wait
    indefinitely, and opening a device may do something.

    Args:
        path: The file.
        dir_fd: The descriptor of the directory that a relative path counts from.
        follow: Whether the last component may be a symbolic link.

    Raises:
        UnreadableFile: It is not a regular file.
        OSError: It cannot be opened.
    """
    links = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | links, dir_fd=dir_fd)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile(_file_kind(status.st_mode), path, status)
        try:
            return _reopen(handle, path, dir_fd, links), status
        except OSError as error:
            error.filename = str(path)
            raise
    finally:
        os.close(handle)


def _reopen(handle: int, path: str | Path, dir_fd: int | None, links: int) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(f"/proc/self/fd/{handle}", flags)
    except FileNotFoundError:  # no /proc, as in some containers: then the path, and what came is compared
        descriptor = os.open(path, flags | links, dir_fd=dir_fd)
    if not os.path.sameopenfile(handle, descriptor):
        os.close(descriptor)
        raise UnreadableFile("was replaced while it was being opened", path)
    return descriptor


def read_regular(path: str | Path, limit: int, *, dir_fd: int | None = None, follow: bool = True) -> FileContent:
    """Return what a regular file holds, when that is no more than a limit; see `open_regular`.

    Raises:
        UnreadableFile: It is not a regular file, or is larger than the limit.
        OSError: It cannot be read.
    """
    descriptor, status = open_regular(path, dir_fd=dir_fd, follow=follow)
    try:
        if status.st_size > limit:
            raise _too_large_error(path, limit, status)
        return FileContent(_read(descriptor, path, limit), status)
    finally:
        os.close(descriptor)


def read_bounded(path: str | Path, limit: int) -> bytes:
    """Return what a file holds that the caller named themselves, a pipe of their shell (`<(…)`) included.

    Raises:
        UnreadableFile: There is more than the limit.
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        return _read(descriptor, path, limit)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: str | Path, limit: int) -> bytes:
    parts, left = [], limit + 1
    while left and (part := os.read(descriptor, min(left, _READ_SIZE))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise _too_large_error(path, limit, None)
    return b"".join(parts)


def _too_large_error(path: str | Path, limit: int, status: os.stat_result | None) -> UnreadableFile:
    sizes = ((2**20, "MiB"), (2**10, "KiB"))
    size = next((f"{limit // unit}{name}" for unit, name in sizes if not limit % unit), f"{limit} bytes")
    return UnreadableFile(f"is larger than {size}", path, status)


def _file_kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "is a symbolic link" if stat.S_ISLNK(mode) else "is not a regular file"
