"""Image files that volumes are made from: whether one can be used, and why not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ostler_volume.errors import BadImage

_FORMATS = {
    b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx", b"conectix": "vhd", b"\x7fVDI": "vdi",
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\3\4": "zip",
}  # fmt: skip


@contextmanager
def opened_image(image: str, folders: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Open an image; yields its descriptor and its size in bytes.

    Args:
        image: The path.
        folders: The folders images may lie in; empty when any will do.

    Raises:
        BadImage: It is missing, unreadable, no regular file, not in one of the folders, or in another format than raw.
    """
    real = os.path.realpath(image)
    if folders and not any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise BadImage(f"{image} is not in a folder for images", hint=f"put it below {' or '.join(folders)}")
    try:
        # Without O_NONBLOCK a named pipe would hold this thread until somebody writes to it.
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "let the daemon's user read it" if isinstance(error, PermissionError) else "the daemon reads it, not you"
        raise BadImage(f"the image {image} cannot be read: {error.strerror}", hint=hint, image=image) from None
    try:
        yield descriptor, _size(descriptor, image)
    finally:
        os.close(descriptor)


def _size(descriptor: int, image: str) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise BadImage(f"the image {image} is {what}", hint="an image is a file", image=image)
    try:
        head = os.pread(descriptor, 16, 0)
    except OSError as error:
        raise BadImage(f"the image {image} cannot be read: {error.strerror}", image=image) from None
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise BadImage(
                f"the image {image} is in the format {name}",
                hint=f"take a raw one; unpack it, or: qemu-img convert -O raw {image} {Path(image).name}.raw",
                image=image,
            )
    return status.st_size
