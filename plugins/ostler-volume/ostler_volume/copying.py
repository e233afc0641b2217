"""Copies files with their holes: by sharing blocks if the file system supports it, else piece by piece."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from ostler import DriverError
from ostler_volume.image_thread import reader_for

FICLONE = 0x40049409
PIECE_SIZE = 4 * 2**20
"""Size of a read: between two pieces progress is reported and the copy can be cancelled."""
ZERO_BLOCK_SIZE = 64 * 2**10
"""A run of zeros of this length, aligned, becomes a hole."""
SYNC_INTERVAL_BYTES = 256 * 2**20
"""Data is synced during the copy, so that the final sync is short and the progress is accurate."""

OnPiece: TypeAlias = Callable[[int, int], None]
"""Called with (bytes done, bytes to do) after each piece; it stops the copy by raising."""

_REFLINK_UNSUPPORTED = {
    errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES,
    errno.ETXTBSY, errno.EISDIR,
}  # fmt: skip


def reflink(source: int, target: int) -> bool:
    """Let the target share all blocks of the source; return False, with the target unchanged, if not supported.

    Args:
        source: Descriptor of a file that is open for reading.
        target: Descriptor of an empty file that is open for writing.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _REFLINK_UNSUPPORTED:
            return False
        raise
    return True


def sparse_copy(
    source: int, target: int, length: int, on_piece: OnPiece, *, sync_interval: int = SYNC_INTERVAL_BYTES
) -> int:
    """Copy the first `length` bytes of the source into an empty target; holes and zeros take up no room there.

    The target has at least `length` bytes afterwards, with the content of the source. An image from `Image.borrow` is
    read in the thread of its source; `on_piece` is also called while waiting for it.

    Args:
        source: Descriptor of a file that is open for reading.
        target: Descriptor of an empty file that is open for writing.
        length: How many bytes.
        on_piece: See `OnPiece`.
        sync_interval: After so many bytes the data is synced.

    Returns:
        How many bytes were written.

    Raises:
        DriverError: The source was truncated while it was read.
        ImageNotResponding: The file system of an image does not respond.
        OSError: Reading or writing failed.
    """
    read = reader_for(source)
    os.ftruncate(target, max(length, os.fstat(target).st_size))
    found = read(lambda: list(data_extents(source, length)), lambda: on_piece(0, length))
    total = sum(end - start for start, end in found)
    done = written = unsynced = 0
    on_piece(0, total)
    for start, end in found:
        for at in range(start, end, PIECE_SIZE):
            piece = read(partial(read_piece, source, at, min(PIECE_SIZE, end - at)), partial(on_piece, done, total))
            new = _write_data(target, at, piece)
            done, written, unsynced = done + len(piece), written + new, unsynced + new
            if unsynced >= sync_interval:
                os.fdatasync(target)
                unsynced = 0
            on_piece(done, total)
    return written


def data_extents(descriptor: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data, as start and end, up to a length."""
    # A file system without SEEK_DATA reports the whole file as data; zeros in it are found when they are read.
    end = 0
    while end < length:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        if start >= length:
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), length)
        yield start, end


def read_piece(descriptor: int, at: int, count: int) -> bytes:
    """Return exactly so many bytes.

    Raises:
        DriverError: The file ends before.
    """
    parts: list[bytes] = []
    while count:
        part = os.pread(descriptor, count, at)
        if not part:
            raise DriverError(
                f"the source ended at byte {at} while it was copied", hint="another process is changing it", at=at
            )
        parts.append(part)
        at, count = at + len(part), count - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_data(descriptor: int, at: int, piece: bytes) -> int:
    """Write the non-zero parts, in runs of grains; return the number of bytes."""
    view = memoryview(piece)
    run_start: int | None = None
    written = 0
    for offset in range(0, len(piece), ZERO_BLOCK_SIZE):
        if _is_zero_view(view[offset : offset + ZERO_BLOCK_SIZE]):
            if run_start is not None:
                written += _write(descriptor, at + run_start, view[run_start:offset])
                run_start = None
        elif run_start is None:
            run_start = offset
    if run_start is not None:
        written += _write(descriptor, at + run_start, view[run_start:])
    return written


_ZEROS = bytes(ZERO_BLOCK_SIZE)


def is_zero(data: bytes) -> bool:
    """Return whether the data is all zeros."""
    return data.count(0) == len(data)


def _is_zero_view(view: memoryview) -> bool:
    # Checking the ends first avoids the comparison for nearly all data.
    return not view[0] and not view[-1] and bytes(view) == _ZEROS[: len(view)]


def write_all(descriptor: int, at: int, data: bytes) -> None:
    """Write all of some data to a place in a file."""
    _write(descriptor, at, memoryview(data))


def _write(descriptor: int, at: int, view: memoryview) -> int:
    count = len(view)
    while view:
        done = os.pwrite(descriptor, view, at)
        at, view = at + done, view[done:]
    return count
