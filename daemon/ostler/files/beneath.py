"""Opening what lies below a directory: no symbolic link is followed, and no path leads out of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_SYS_OPENAT2 = 437
"""The number of the system call; the same on every architecture but alpha."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_UNSUPPORTED_ERRORS = {errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG}
"""What a kernel without the call, or a sandbox that does not allow it, answers."""
_MAX_TRIES = 16


def open_directory(path: Path, *, follow: bool = False) -> int:
    """Open a directory to hold on to, and return its descriptor. Any thread.

    Args:
        path: The directory.
        follow: Whether its last component may be a symbolic link; those before it may.

    Raises:
        OSError: It cannot be opened, is not a directory, or is a link.
    """
    links = 0 if follow else os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | links)
    except NotADirectoryError:
        if links and path.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link and is not followed", str(path)) from None
        raise


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open an existing file below a directory and return its descriptor. Any thread.

    The kernel resolves the path in one step where it can (`openat2`), so that nothing can be exchanged between a check
    and the opening; elsewhere each component is opened relative to the one before.

    Args:
        directory: The descriptor of the directory.
        path: The path relative to it.
        flags: As for `os.open`; nothing is created.

    Raises:
        OSError: It cannot be opened; `ELOOP` or `ENOTDIR` for a symbolic link, `EXDEV` for a path that leads out.
    """
    flags |= os.O_CLOEXEC
    for _ in range(_MAX_TRIES):
        descriptor, code = _openat2(directory, path, flags)
        if descriptor >= 0:
            return descriptor
        if code in _UNSUPPORTED_ERRORS:
            return _open_by_component(directory, path, flags)
        if code != errno.EAGAIN:  # EAGAIN: something was renamed while the path was resolved
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def _openat2(directory: int, path: str, flags: int) -> tuple[int, int]:
    """Return a descriptor and 0, or -1 and the number of the error."""
    try:
        import ctypes  # imported by those few who open images; some sandboxes do not allow the import itself

        syscall = ctypes.CDLL(None, use_errno=True).syscall
    except (ImportError, MemoryError, OSError, AttributeError):
        return -1, errno.ENOSYS
    how = (ctypes.c_uint64 * 3)(flags, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    name = ctypes.c_char_p(os.fsencode(path))
    arguments = (ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(directory), name, how, ctypes.c_size_t(ctypes.sizeof(how)))
    syscall.restype = ctypes.c_long
    descriptor = int(syscall(*arguments))
    return (descriptor, 0) if descriptor >= 0 else (-1, ctypes.get_errno())


def _open_by_component(directory: int, path: str, flags: int) -> int:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    if not parts:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    here = os.dup(directory)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)
