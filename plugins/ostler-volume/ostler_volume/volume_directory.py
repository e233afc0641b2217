"""The directory of a `file` backend: its layout, and the atomic creation of files.

    PATH/.lock                        held while a daemon uses the directory
    PATH/.ostler-backend              the identity of the backend, see `identity`
    PATH/volumes/NAME                 a volume
    PATH/volumes/.NAME.partial        an unfinished volume
    PATH/snapshots/VOLUME@NAME        a snapshot, which is never written again
    PATH/images                       the image store: images that an administrator puts here

Names begin with a letter or digit and have no `@`, so these names are unambiguous.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostler import DriverError, NoCapacity, format_size
from ostler_volume.backend_identity import read_id
from ostler_volume.copying import SYNC_INTERVAL_BYTES, reflink, write_all
from ostler_volume.driver import BackendObject
from ostler_volume.errors import AlreadyExists
from ostler_volume.filesystem import sync_freed_blocks, truncate_when_unlinked
from ostler_volume.image_thread import is_mount_or_symlink

VOLUMES, SNAPSHOTS, IMAGES = "volumes", "snapshots", "images"
_PARTIAL_SUFFIX = ".partial"
_DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ERROR_HINTS = {
    errno.EACCES: "allow the daemon's user to read and write it",
    errno.EPERM: "allow the daemon's user to read and write it",
    errno.EROFS: "under systemd, directories outside of /var/lib/ostler need ReadWritePaths= in a drop-in of the unit",
}


class VolumeDirectory:
    """A directory with the files of volumes and snapshots.

    Args:
        path: The directory.
        on_step: Called with the name of each step before it is taken, so that a test can stop in between.

    Attributes:
        identity: The id of the backend once it is known; a directory with this id is the same backend.
        on_step: What is called with the name of each step.
    """

    def __init__(self, path: Path, on_step: Callable[[str], None] = lambda _step: None) -> None:
        self.path = path
        self.on_step = on_step
        self._lock_descriptor: int | None = None
        self._lock_path = path / ".lock"
        self._relock_mutex = threading.Lock()
        self.identity = ""

    def open(self, *, mounted: bool, verify: Callable[[], None] = lambda: None) -> None:
        """Create the directory if it is missing, and lock it. An existing directory needs no space on a full disk.

        Args:
            mounted: Whether it must be a mount point.
            verify: Called before anything is created; raises if it is not the expected directory.

        Raises:
            DriverError: It cannot be created or written, is not a mount point, or is already in use.
        """
        with translate_os_errors(f"cannot use the directory {self.path}"):
            if mounted and not self.path.is_mount():
                raise DriverError(f"{self.path} is not mounted", hint="mount it; it is retried automatically")
            verify()
            for folder in (self.path, self.path / VOLUMES):
                make_private_directory(folder)
            images = (
                self.path / IMAGES
            )  # another file system may be mounted there, which may hang and must not be changed
            for folder in (self.path / SNAPSHOTS, *([] if is_mount_or_symlink(images) else [images])):
                with _ignore_disk_full():
                    make_private_directory(folder)
            self._take_lock()
            # Check now whether it is writable, and not with the first volume. A full disk must not prevent deletions,
            # nor the removal of a partial that has filled it.
            with _ignore_disk_full(), self._probe_file("write") as descriptor:
                os.pwrite(descriptor, b"\1", 0)

    def close(self) -> None:
        """Unlock the directory; safe at any time."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def check(self) -> None:
        """Raise if the directory is not the one that was opened: unmounted, removed, or replaced.

        If its disk was removed and is back, a directory with the right identity counts as the one that was opened.

        Raises:
            DriverError: It is not.
        """
        if self._lock_descriptor is None:
            raise DriverError(f"the directory {self.path} is not open", hint="the driver is stopped")
        with translate_os_errors(f"cannot use the directory {self.path}"):
            if not self._is_locked_here():
                with self._relock_mutex:
                    self._relock()

    def check_writable(self) -> None:
        """Raise if the file system has become read-only, as it does after errors.

        Raises:
            DriverError: It is read-only.
        """
        with translate_os_errors(f"cannot use the directory {self.path}"):
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
        if read_only:
            raise DriverError(
                f"{self.path} is on a read-only file system",
                hint="the kernel log (`dmesg`) says why; fix the cause and mount it again",
            )

    def _is_locked_here(self) -> bool:
        try:
            here = self._lock_path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        opened = os.fstat(self._lock_descriptor) if self._lock_descriptor is not None else None
        return opened is not None and (here.st_dev, here.st_ino) == (opened.st_dev, opened.st_ino)

    def _relock(self) -> None:
        if self._is_locked_here():  # another process was faster
            return
        if not self.identity or read_id(self.path) != self.identity:
            raise DriverError(
                f"cannot use the directory {self.path}: not the backend it was, the directory was replaced",
                hint="check that its disk is mounted; it is used again as soon as it is back",
            )
        before, self._lock_descriptor = self._lock_descriptor, None
        try:
            self._take_lock()
        except BaseException:
            self._lock_descriptor = before
            raise
        if before is not None:
            os.close(before)

    def can_reflink(self) -> bool | None:
        """Return whether files here can share blocks, by trying; None if the disk is too full to try."""
        try:
            with self._probe_file("reflink-1") as source, self._probe_file("reflink-2") as target:
                os.pwrite(source, b"\1" * 4096, 0)
                return reflink(source, target)
        except OSError as error:
            if error.errno not in _DISK_FULL_ERRORS:
                raise
            return None

    def file(self, kind: str, name: str) -> Path:
        """Return the path of a complete file."""
        return self.path / kind / name

    def partial(self, kind: str, name: str) -> Path:
        """Return the path of an unfinished file."""
        return self.path / kind / f".{name}{_PARTIAL_SUFFIX}"

    def list_files(self, kind: str) -> tuple[dict[str, BackendObject], set[str]]:
        """Return the complete files with sizes, and the names of unfinished ones."""
        found: dict[str, BackendObject] = {}
        partials: set[str] = set()
        for entry in self._entries(kind):
            if not entry.name.startswith("."):
                if (status := _stat_file(entry)) is not None:
                    found[entry.name] = BackendObject(status.st_size, status.st_blocks * 512)
            elif entry.name.endswith(_PARTIAL_SUFFIX):
                partials.add(entry.name[1 : -len(_PARTIAL_SUFFIX)])
        return found, partials

    def file_stats(self, kind: str) -> dict[Path, os.stat_result]:
        """Return the status of each complete file."""
        entries = [entry for entry in self._entries(kind) if not entry.name.startswith(".")]
        return {Path(entry.path): found for entry in entries if (found := _stat_file(entry)) is not None}

    def _entries(self, kind: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / kind) as entries:
                return list(entries)
        except FileNotFoundError:
            if kind == SNAPSHOTS and (self.path / VOLUMES).exists():  # the disk was too full to create it
                return []
            raise

    def make(self, kind: str, name: str, fill: Callable[[int], None], *, mode: int = 0o600) -> None:
        """Create a file atomically: fill a partial, sync it, rename it, sync the directory.

        Args:
            kind: `volumes` or `snapshots`.
            name: Its name.
            fill: Called with the descriptor of the empty partial.
            mode: Permissions of the finished file.

        Raises:
            AlreadyExists: A file of that name exists.
        """
        partial = self.partial(kind, name)
        descriptor = self._open_partial(kind, name)
        try:
            try:
                self.on_step("fill")
                fill(descriptor)
                self.on_step("sync")
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.on_step("rename")
            partial.rename(self.file(kind, name))
        except Exception:
            partial.unlink(missing_ok=True)
            raise
        self._publish(kind, name)

    def begin(self, kind: str, name: str, size: int) -> None:
        """Begin a file that `write` fills in pieces, and `finish` renames.

        Raises:
            AlreadyExists: A file of that name exists.
        """
        descriptor = self._open_partial(kind, name)
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def write(self, kind: str, name: str, offset: int, data: bytes) -> None:
        """Write a piece of an unfinished file."""
        descriptor = os.open(self.partial(kind, name), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            write_all(descriptor, offset, data)
            if offset // SYNC_INTERVAL_BYTES != (offset + len(data)) // SYNC_INTERVAL_BYTES:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, kind: str, name: str) -> None:
        """Rename an unfinished file to its final name, and sync it to disk."""
        partial = self.partial(kind, name)
        descriptor = os.open(partial, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.on_step("sync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.on_step("rename")
        partial.rename(self.file(kind, name))
        self._publish(kind, name)

    def _open_partial(self, kind: str, name: str) -> int:
        final, partial = self.file(kind, name), self.partial(kind, name)
        if final.exists():
            raise AlreadyExists(f"the file {final} already exists", hint="choose another name, or move the file away")
        self.on_step("partial")
        partial.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(partial, flags, 0o600)

    def _publish(self, kind: str, name: str) -> None:
        self.on_step("sync folder")
        try:
            self.sync(kind)
        except OSError:
            # A file that could not be synced must not remain: the caller gets an error, and would find it later.
            self.file(kind, name).unlink(missing_ok=True)
            raise

    def remove(self, kind: str, name: str) -> None:
        """Remove a complete file; a missing one is not an error."""
        self._unlink(kind, self.file(kind, name))

    def discard(self, kind: str, name: str) -> None:
        """Remove an unfinished file; a missing one is not an error."""
        self._unlink(kind, self.partial(kind, name))

    def _unlink(self, kind: str, path: Path) -> None:
        self.on_step("unlink")
        with truncate_when_unlinked(path):
            path.unlink(missing_ok=True)
        self.on_step("sync folder")
        self.sync(kind, freed=True)

    def sync(self, kind: str, *, freed: bool = False) -> None:
        """Sync the names in a directory to disk, and free the blocks of removed files if `freed`."""
        descriptor = os.open(self.path / kind, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            if freed:
                sync_freed_blocks(descriptor)
        finally:
            os.close(descriptor)

    def _take_lock(self) -> None:
        if self._lock_descriptor is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._lock_path = self.path / ".lock"
        try:
            descriptor = os.open(self._lock_path, flags, 0o600)
        except OSError as error:
            if error.errno not in _DISK_FULL_ERRORS:
                raise
            self._lock_path = self.path  # a new file needs space
            descriptor = os.open(self._lock_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DriverError(
                f"{self.path} is in use by another backend or daemon", hint="use a separate directory for each backend"
            ) from None
        self._lock_descriptor = descriptor

    @contextmanager
    def _probe_file(self, name: str) -> Iterator[int]:
        path = self.path / f".probe-{name}"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)


def make_private_directory(folder: Path) -> None:
    """Create a directory with mode 0700, whatever the umask; an existing one of ours loses write access of others.

    Raises:
        DriverError: It is a directory that all users share, such as /tmp.
        OSError: It cannot be created, or is not a directory.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:  # drivers start concurrently: another one has created a common parent
            if not each.is_dir():
                raise
            continue
        each.chmod(0o700 if each == folder else 0o755)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):  # a device, say: its mode concerns every program
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if found.st_mode & stat.S_ISVTX and found.st_mode & 0o002:
        raise DriverError(f"{folder} is shared by all users", hint="use a directory below it, or another one")
    if found.st_mode & 0o022 and found.st_uid == os.geteuid():
        folder.chmod(found.st_mode & 0o7755)


def _stat_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False) if entry.is_file(follow_symlinks=False) else None
    except FileNotFoundError:  # deleted since the directory was read
        return None


@contextmanager
def _ignore_disk_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL_ERRORS:
            raise


@contextmanager
def translate_os_errors(what: str) -> Iterator[None]:
    """Turn an error of the operating system into one of Ostler, with a message that begins with `what`.

    Raises:
        NoCapacity: The device or a quota is full.
        DriverError: Anything else.
    """
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        sentence = f"{what}: {error.strerror or error}{place}"
        if error.errno in _DISK_FULL_ERRORS:
            raise NoCapacity(sentence, hint="free some space, or use another backend") from None
        raise DriverError(sentence, hint=_ERROR_HINTS.get(error.errno or 0, "")) from None


def capacity_hint(free: int) -> str:
    """Return the hint for too little space."""
    return (
        f"{format_size(max(0, free))} can still be promised; free space, raise `oversubscription`, or reduce the size"
    )
