"""Image files: opened once, checked by the descriptor, and used only through it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Self

from ostler import open_beneath
from ostler_volume.errors import BadImage
from ostler_volume.image_thread import ImageDescriptor, ImageMounts, ImageThread

_FLAGS = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
)  # a named pipe must not block the thread that opens it
_OUTSIDE_DIRECTORY_ERRORS = {errno.ELOOP, errno.EXDEV, errno.ENOTDIR}
_FOREIGN_FORMATS = {
    b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx", b"conectix": "vhd", b"\x7fVDI": "vdi",
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\3\4": "zip",
}  # fmt: skip


HEADER_SIZE = 16
"""Bytes at the start of an image from which its format is detected."""


class Image:
    """An open image: the file that was checked, even if another file has its path by now.

    Args:
        descriptor: Its descriptor, which is closed by `close`.
        size: Its size in bytes.
        path: Its path, for messages.

    `image_thread` is the thread that accesses it, if others must not; see `image_thread`.
    """

    image_thread: ImageThread | None = None

    def __init__(self, descriptor: int, size: int, path: str) -> None:
        self.size = size
        self.path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[int]:
        """Yield a duplicate descriptor, so that a copy that outlives its caller never reads another file. Any thread.

        Raises:
            BadImage: It is closed.
        """
        with self._lock:
            if self._descriptor < 0:
                raise BadImage(f"the image {self.path} is closed", hint="retry the request", image=self.path)
            mine = os.dup(self._descriptor)
        if self.image_thread is None:
            try:
                yield mine
            finally:
                os.close(mine)
            return
        lent = ImageDescriptor(mine)
        lent.image_thread, lent.path = self.image_thread, self.path
        try:
            yield lent
        finally:
            # Closing a file may need a server that does not respond.
            self.image_thread.submit(partial(os.close, mine))

    def close(self) -> None:
        """Close it; safe at any time and on any thread."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self.image_thread is None:
            os.close(descriptor)
        else:
            self.image_thread.close(partial(os.close, descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:  # a driver may return one when nobody waits for it any more
        self.close()


def open_image(image: str, directories: Sequence[str]) -> Image:
    """Open an image below one of several directories, for a caller who may read all files there.

    Nothing outside of them is accessed, so that callers learn nothing about other files.

    Args:
        image: The path.
        directories: The directories of images.

    Raises:
        BadImage: It is not below one of them, not readable, not a regular file, or in another format than raw.
    """
    for directory in directories:
        for known in dict.fromkeys((directory, os.path.realpath(directory))):
            if PurePath(image).is_relative_to(known):
                return _open_below(known, str(PurePath(image).relative_to(known)), image)
    raise BadImage(
        f"{image} is not in an image directory",
        hint="`ostler volume create --from FILE` uploads a file that you can read; image directories: "
        f"{', '.join(directories) or 'none'}, and those of `image_directories`",
        image=image,
    )


def open_guarded_image(image: str, directories: Sequence[str], mounts: ImageMounts, timeout: float) -> Image:
    """Open an image as `open_image` does, in a separate thread, which reads and closes it as well.

    Args:
        image: The path.
        directories: The directories of images.
        mounts: The places of images, with the threads that hang there.
        timeout: Seconds that each step may take: to open it, and to read a piece of it.

    Raises:
        BadImage: See `open_image`.
        ImageNotResponding: It could not be opened in time, or another thread hangs in its place.
    """
    source = ImageThread(mounts.mount_of_path(image), timeout)
    try:
        found = source.run(f"opening the image {image}", lambda: open_image(image, directories))
    except BaseException:
        source.close(_no_op)
        raise
    found.image_thread = source
    return found


def open_own_image(path: str) -> Image:
    """Open an image with the rights of this process.

    Raises:
        BadImage: It is missing, not readable, not a regular file, or in another format than raw.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise BadImage(f"cannot read the image {path}: {error.strerror}", image=path) from None
    return _check_image(descriptor, path)


def check_format(head: bytes, image: str) -> None:
    """Raise if an image is not raw.

    Args:
        head: Its first bytes, `HEADER_SIZE` of them.
        image: Its path or name, for messages.

    Raises:
        BadImage: It is in another format.
    """
    for magic, name in _FOREIGN_FORMATS.items():
        if head.startswith(magic):
            raise BadImage(
                f"the image {image} has the unsupported format {name}",
                hint=f"use a raw image; unpack it, or run: qemu-img convert -O raw {image} {Path(image).name}.raw",
                image=image,
            )


def _no_op() -> None:
    """Do nothing: the close function for an image that was not opened."""


def _open_below(directory: str, relative: str, image: str) -> Image:
    parent, _, name = relative.rpartition("/")
    top = folder = -1
    try:
        top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        folder = open_beneath(top, parent, os.O_PATH | os.O_DIRECTORY) if parent else os.dup(top)
        descriptor = open_beneath(folder, name, _FLAGS)
        owner = os.fstat(folder).st_uid
    except OSError as error:
        hint = "allow the daemon's user to read it" if isinstance(error, PermissionError) else ""
        if error.errno in _OUTSIDE_DIRECTORY_ERRORS:
            hint = "symbolic links below an image directory are not followed"
        raise BadImage(f"cannot read the image {image}: {error.strerror}", hint=hint, image=image) from None
    finally:
        for each in (top, folder):
            if each >= 0:
                os.close(each)
    return _check_image(descriptor, image, owner)


def _check_image(descriptor: int, image: str, owner: int = 0) -> Image:
    """Return the image of a descriptor, or close it and raise; `owner` is the owner of its directory."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadImage(f"the image {image} is {what}", hint="an image must be a regular file", image=image)
        if status.st_nlink > 1 and owner not in (0, status.st_uid):
            raise BadImage(
                f"the image {image} is a hard link to a file of another user than the owner of its directory",
                hint="copy it", image=image,
            )  # fmt: skip
        check_format(os.pread(descriptor, HEADER_SIZE, 0), image)
    except OSError as error:
        os.close(descriptor)
        raise BadImage(f"cannot read the image {image}: {error.strerror}", image=image) from None
    except BaseException:
        os.close(descriptor)
        raise
    return Image(descriptor, status.st_size, image)
