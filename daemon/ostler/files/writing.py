"""Writing files whole or not at all, through no link, with modes that are set and not inherited."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ostler.files.beneath import open_directory
from ostler.files.reading import UnreadableFile

_MAX_NAME_LENGTH = 200
_COPY_CHUNK_SIZE = 64 * 1024 * 1024
_NO_LINK_ERRORS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
"""What file systems without hard links answer."""


def replace_file(path: Path, data: bytes, *, mode: int, max_mode: int = 0o777, is_new: bool = False) -> None:
    """Write a temporary file, sync it to disk, and rename it into place. Any thread.

    No reader ever sees a partial file. Its directory is held open, and neither the directory's nor the file's own name
    is followed when it is a symbolic link.

    Args:
        path: The file; its directory must be there.
        data: What it is to hold.
        mode: Its permissions, whatever the umask. A file that is replaced passes its own on, and its group, owner,
            access control list and extended attributes where that is allowed.
        max_mode: The most that it may have of those.
        is_new: Whether it must not be there yet.

    Raises:
        FileExistsError: It is there, and must not be.
        UnreadableFile: What is there is not a regular file.
        OSError: It cannot be written; what was there is unchanged.
    """
    directory = open_directory(path.parent)
    fresh = f".{path.name[:_MAX_NAME_LENGTH]}.{os.urandom(8).hex()}.new"
    try:
        before = _check_replaceable(directory, path)
        if before is not None and is_new:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
        )
        try:
            _write_content(descriptor, data, before, mode, max_mode)
            if before is not None and max_mode & 0o777 == 0o777:  # a list could grant more than `max_mode`
                _copy_attributes(directory, path.name, fresh)
            publish_file(directory, fresh, directory, path.name, is_new=is_new)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=directory)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the name of an unknown file
        raise
    finally:
        os.close(directory)


def _check_replaceable(directory: int, path: Path) -> os.stat_result | None:
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        what = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a regular file"
        raise UnreadableFile(f"{what} and is not overwritten", path, found)
    return found


def _write_content(descriptor: int, data: bytes, before: os.stat_result | None, mode: int, max_mode: int) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        if before is not None:
            mode = _copy_owner(descriptor, before, before.st_mode & max_mode)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _copy_attributes(directory: int, old: str, new: str) -> None:
    """Give a file the extended attributes of another, with them its access control list, as far as that is allowed."""
    here = f"/proc/self/fd/{directory}"
    try:
        names = os.listxattr(f"{here}/{old}", follow_symlinks=False)
    except OSError:
        return  # a file system without them
    for name in names:
        with suppress(OSError):
            value = os.getxattr(f"{here}/{old}", name, follow_symlinks=False)
            os.setxattr(f"{here}/{new}", name, value, follow_symlinks=False)


def _copy_owner(descriptor: int, before: os.stat_result, mode: int) -> int:
    """Give a file the owner and group of another as far as that is allowed; return the mode that is safe then."""
    for uid, gid in ((before.st_uid, before.st_gid), (-1, before.st_gid)):
        try:
            os.fchown(descriptor, uid, gid)
        except OSError:
            continue
        return mode
    return mode & ~0o070 | (mode & 0o007) << 3  # another group: it gets what everybody has


def publish_file(source: int, temporary_name: str, target: int, name: str, *, is_new: bool) -> None:
    """Give a finished file its name and have the name safe on the disk.

    Args:
        source: The directory that it is in.
        temporary_name: Its name there.
        target: The directory that it is to be in.
        name: Its name there.
        is_new: Whether the name must not be taken.

    Raises:
        FileExistsError: The name is taken.
        OSError: It cannot be done, for instance between file systems.
    """
    if is_new:
        try:
            os.link(temporary_name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            os.unlink(temporary_name, dir_fd=source)
        except OSError as error:
            if error.errno not in _NO_LINK_ERRORS:
                raise
            is_new = False
    if not is_new:
        os.rename(temporary_name, name, src_dir_fd=source, dst_dir_fd=target)
    os.fsync(target)


def move_file(source: Path, target: Path, *, mode: int) -> None:
    """Bring a finished file to another name, which must not be taken, safe on the disk. Any thread.

    Between file systems its content is copied. The directories are held open; they may be reached through links.

    Args:
        source: The file; it is gone afterwards.
        target: Where it is to be.
        mode: Its permissions then.

    Raises:
        FileExistsError: The target is there, if only as a link.
        OSError: It cannot be done; nothing is there then.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    here = there = -1
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        here, there = open_directory(source.parent, follow=True), open_directory(target.parent, follow=True)
        try:
            publish_file(here, source.name, there, target.name, is_new=True)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_to(descriptor, there, target.name, mode)
            os.unlink(source.name, dir_fd=here)
    finally:
        for each in (descriptor, here, there):
            if each >= 0:
                os.close(each)


def _copy_to(source: int, directory: int, name: str, mode: int) -> None:
    fresh = f".{name[:_MAX_NAME_LENGTH]}.{os.urandom(8).hex()}.new"
    target = os.open(
        fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
    )
    try:
        try:
            at = 0
            while done := os.sendfile(target, source, at, _COPY_CHUNK_SIZE):
                at += done
            os.fchmod(target, mode)
            os.fsync(target)
        finally:
            os.close(target)
        publish_file(directory, fresh, directory, name, is_new=True)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that is not there yet, where a partial file does no harm; see `replace_file` for all others.

    Raises:
        FileExistsError: It is there, if only as a link.
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)


def make_directory(path: Path, mode: int) -> bool:
    """Make a directory with a mode that does not depend on the umask; return False when it was there. Any thread.

    Directories above it that are missing are made with mode 0755.

    Raises:
        OSError: It cannot be made, or is not a directory.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        return False
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_directory(path.parent, 0o755)
        return make_directory(path, mode)
    descriptor = open_directory(path)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return True


def restrict_mode(path: Path, mode: int) -> int | None:
    """Take away the permissions that `mode` lacks from a file or directory that is ours. Any thread.

    A directory in which every user has files of their own, such as /tmp, is left as it is.

    Returns:
        The permissions that it had, when they were too many; None when nothing was changed.

    Raises:
        OSError: It cannot be looked at, is a link, or is neither a file nor a directory: a device is every program's.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        before = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise UnreadableFile("is neither a regular file nor a directory", path, found)
        is_shared = stat.S_ISDIR(found.st_mode) and before & stat.S_ISVTX
        if is_shared or not before & 0o777 & ~mode or found.st_uid != os.geteuid():
            return None
        Path(f"/proc/self/fd/{descriptor}").chmod(before & (mode | 0o7000))
        return before
    finally:
        os.close(descriptor)
