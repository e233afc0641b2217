"""Image files that volumes are made from: opened once, judged by the descriptor, and used by it from there on."""

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
from ostler_volume.image_source import ImageSource, Places, SourceDescriptor

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a named pipe must not hold the thread that opens it
_STRAYED = {errno.ELOOP, errno.EXDEV, errno.ENOTDIR}
_FORMATS = {
    b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx", b"conectix": "vhd", b"\x7fVDI": "vdi",
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\3\4": "zip",
}  # fmt: skip


HEAD = 16
"""Bytes at the beginning of an image by which its format is known."""


class Image:
    """An image that is open; whatever lies at its path by now, this is what was judged.

    Args:
        descriptor: Its descriptor, which is closed by `close`.
        size: Its size in bytes.
        path: Where it was found, for messages.

    `source` is the thread that touches it, if it is not to be touched in others; see `image_source`.
    """

    source: ImageSource | None = None

    def __init__(self, descriptor: int, size: int, path: str) -> None:
        self.size = size
        self.path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[int]:
        """Lend a descriptor of its own, so that a copy which outlives its caller never reads another file. Any thread.

        Raises:
            BadImage: It was closed before.
        """
        with self._lock:
            if self._descriptor < 0:
                raise BadImage(f"the image {self.path} is not open any more", hint="ask again", image=self.path)
            mine = os.dup(self._descriptor)
        if self.source is None:
            try:
                yield mine
            finally:
                os.close(mine)
            return
        lent = SourceDescriptor(mine)
        lent.source, lent.path = self.source, self.path
        try:
            yield lent
        finally:
            # To close a file may mean to ask a server that does not answer.
            self.source.later(partial(os.close, mine))

    def close(self) -> None:
        """Close it; safe at any time and on any thread."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self.source is None:
            os.close(descriptor)
        else:
            self.source.close(partial(os.close, descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:  # a driver may hand one over when nobody waits for it any more
        self.close()


def open_image(image: str, directories: Sequence[str]) -> Image:
    """Open an image below one of some directories, for somebody who may read all that lies there.

    Nothing outside of them is looked at, so that nobody learns what is there.

    Args:
        image: The path.
        directories: The directories that images may be taken from.

    Raises:
        BadImage: It is not below one of them, not readable, not a regular file, or in another format than raw.
    """
    for directory in directories:
        for known in dict.fromkeys((directory, os.path.realpath(directory))):
            if PurePath(image).is_relative_to(known):
                return _open_below(known, str(PurePath(image).relative_to(known)), image)
    raise BadImage(
        f"{image} is not in an image directory",
        hint="`ostler volume create --from FILE` hands over a file that you may read; directories are "
        f"{' and '.join(directories) or 'none'}, and those of `image_folders`",
        image=image,
    )


def open_guarded_image(image: str, directories: Sequence[str], places: Places, limit: float) -> Image:
    """Open an image as `open_image` does, in a thread of its own, in which it is read and closed as well.

    Args:
        image: The path.
        directories: The directories that images may be taken from.
        places: The places that images come from, and whether something hangs there.
        limit: Seconds that each step may take: to open it, and to read a piece of it.

    Raises:
        BadImage: See `open_image`.
        ImageNotResponding: It could not be opened in time, or something hangs where it lies.
    """
    source = ImageSource(places.of(image), limit)
    try:
        found = source.do(f"opening the image {image}", lambda: open_image(image, directories))
    except BaseException:
        source.close(_nothing)
        raise
    found.source = source
    return found


def open_own_image(path: str) -> Image:
    """Open an image that this process itself may read.

    Raises:
        BadImage: It is missing, not readable, not a regular file, or in another format than raw.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise BadImage(f"the image {path} cannot be read: {error.strerror}", image=path) from None
    return _judged(descriptor, path)


def check_format(head: bytes, image: str) -> None:
    """Refuse an image that is not raw.

    Args:
        head: Its first bytes, `HEAD` of them.
        image: Its path or name, for messages.

    Raises:
        BadImage: It is in another format.
    """
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise BadImage(
                f"the image {image} is in the format {name}",
                hint=f"take a raw one; unpack it, or: qemu-img convert -O raw {image} {Path(image).name}.raw",
                image=image,
            )


def _nothing() -> None:
    """Stand in for the closing of what was not opened."""


def _open_below(directory: str, relative: str, image: str) -> Image:
    parent, _, name = relative.rpartition("/")
    top = folder = -1
    try:
        top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        folder = open_beneath(top, parent, os.O_PATH | os.O_DIRECTORY) if parent else os.dup(top)
        descriptor = open_beneath(folder, name, _FLAGS)
        owner = os.fstat(folder).st_uid
    except OSError as error:
        hint = "let the daemon's user read it" if isinstance(error, PermissionError) else ""
        if error.errno in _STRAYED:
            hint = "below an image directory no symbolic link is followed"
        raise BadImage(f"the image {image} cannot be read: {error.strerror}", hint=hint, image=image) from None
    finally:
        for each in (top, folder):
            if each >= 0:
                os.close(each)
    return _judged(descriptor, image, owner)


def _judged(descriptor: int, image: str, owner: int = 0) -> Image:
    """Return the image behind a descriptor, or close it; `owner` is whose directory it lies in."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadImage(f"the image {image} is {what}", hint="an image is a file", image=image)
        if status.st_nlink > 1 and owner not in (0, status.st_uid):
            raise BadImage(
                f"the image {image} is another name of a file that is not of the owner of its directory",
                hint="copy it", image=image,
            )  # fmt: skip
        check_format(os.pread(descriptor, HEAD, 0), image)
    except OSError as error:
        os.close(descriptor)
        raise BadImage(f"the image {image} cannot be read: {error.strerror}", image=image) from None
    except BaseException:
        os.close(descriptor)
        raise
    return Image(descriptor, status.st_size, image)
