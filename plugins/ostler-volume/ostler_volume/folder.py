"""The folder of a `file` backend: where things lie, and how a file comes to be there whole or not at all.

    PATH/.lock                        held while a daemon uses the folder
    PATH/.ostler-backend              the identity of the backend, see `identity`
    PATH/volumes/NAME                 a volume
    PATH/volumes/.NAME.partial        an unfinished one
    PATH/snapshots/VOLUME@NAME        a snapshot, never written again
    PATH/images                       the image store: what an administrator puts here, volumes may be made from

Names begin with a letter or digit and have no `@`, so these can never be mistaken for each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostler import DriverError, NoCapacity, format_size
from ostler_volume.copying import SYNC_EVERY, reflink, write_all
from ostler_volume.driver import Found
from ostler_volume.errors import AlreadyExists
from ostler_volume.filesystem import emptied, free_now
from ostler_volume.identity import read_id
from ostler_volume.image_source import lies_elsewhere

VOLUMES, SNAPSHOTS, IMAGES = "volumes", "snapshots", "images"
_PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HINTS = {
    errno.EACCES: "let the daemon's user read and write it",
    errno.EPERM: "let the daemon's user read and write it",
    errno.EROFS: "under systemd, folders outside of /var/lib/ostler need ReadWritePaths= in a drop-in of the unit",
}


class Folder:
    """A folder with volumes and snapshots in it; knows files, not what they are for.

    Args:
        path: The folder.
        seam: Called with the name of each step that is about to be taken, so that a test can stop in between.

    Attributes:
        identity: The id of the backend once it is known; a folder that has it is this one, wherever it is mounted.
    """

    def __init__(self, path: Path, seam: Callable[[str], None] = lambda _step: None) -> None:
        self.path = path
        self._seam = seam
        self._lock: int | None = None
        self._locked = path / ".lock"
        self._relocking = threading.Lock()
        self.identity = ""

    def open(self, *, mounted: bool, verify: Callable[[], None] = lambda: None) -> None:
        """Make the folder if it is missing, and lock it. On a disk that is full a folder that is there needs no room.

        Args:
            mounted: Whether it must be a mount point.
            verify: Called before anything is made; raises when it is not the folder that was expected.

        Raises:
            DriverError: It cannot be made or written, is no mount point, or somebody else uses it.
        """
        with told(f"the folder {self.path} cannot be used"):
            if mounted and not self.path.is_mount():
                raise DriverError(f"{self.path} is not mounted", hint="mount it; it is tried again automatically")
            verify()
            for folder in (self.path, self.path / VOLUMES):
                _make_directory(folder)
            images = self.path / IMAGES  # where something else may be mounted, which may hang, and is not ours to make
            for folder in (self.path / SNAPSHOTS, *([] if lies_elsewhere(images) else [images])):
                with _full_is_no_reason():
                    _make_directory(folder)
            self._take_lock()
            # Whether it can be written is found out now, and not by the first volume. That it is full must not keep
            # anybody from deleting what is there, nor a leftover that filled it from being cleared away.
            with _full_is_no_reason(), self._scratch("write") as descriptor:
                os.pwrite(descriptor, b"\1", 0)

    def close(self) -> None:
        """Unlock the folder; safe at any time."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check(self) -> None:
        """Raise when the folder is not the one that was opened: unmounted, removed, or replaced.

        When its disk was taken away and is back, the folder with the right identity is taken for the one that was
        opened.

        Raises:
            DriverError: It is not.
        """
        if self._lock is None:
            raise DriverError(f"the folder {self.path} is not open", hint="the driver is stopped")
        with told(f"the folder {self.path} cannot be used"):
            if not self._is_locked_here():
                with self._relocking:
                    self._lock_again()

    def check_writable(self) -> None:
        """Raise when nothing can be written any more: a file system with errors becomes read-only.

        Raises:
            DriverError: It is read-only.
        """
        with told(f"the folder {self.path} cannot be used"):
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
        if read_only:
            raise DriverError(
                f"{self.path} is on a file system that is read-only",
                hint="the kernel's log says why (`dmesg`); mount it anew when that is mended",
            )

    def _is_locked_here(self) -> bool:
        try:
            here = self._locked.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        opened = os.fstat(self._lock) if self._lock is not None else None
        return opened is not None and (here.st_dev, here.st_ino) == (opened.st_dev, opened.st_ino)

    def _lock_again(self) -> None:
        if self._is_locked_here():  # somebody else was quicker
            return
        if not self.identity or read_id(self.path) != self.identity:
            raise DriverError(
                f"the folder {self.path} cannot be used: not the backend it was, another folder than at the start",
                hint="is its disk still mounted? It is used again when it is back",
            )
        before, self._lock = self._lock, None
        try:
            self._take_lock()
        except BaseException:
            self._lock = before
            raise
        if before is not None:
            os.close(before)

    def can_reflink(self) -> bool | None:
        """Return whether files here can share blocks, by trying; None when the disk is too full to try."""
        try:
            with self._scratch("reflink-1") as source, self._scratch("reflink-2") as target:
                os.pwrite(source, b"\1" * 4096, 0)
                return reflink(source, target)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return None

    def file(self, kind: str, name: str) -> Path:
        """Return where a complete file lies."""
        return self.path / kind / name

    def partial(self, kind: str, name: str) -> Path:
        """Return where an unfinished file lies."""
        return self.path / kind / f".{name}{_PARTIAL}"

    def listing(self, kind: str) -> tuple[dict[str, Found], set[str]]:
        """Return what is complete, with sizes, and the names of what is unfinished."""
        found: dict[str, Found] = {}
        partials: set[str] = set()
        for entry in self._entries(kind):
            if not entry.name.startswith("."):
                if (status := _status(entry)) is not None:
                    found[entry.name] = Found(status.st_size, status.st_blocks * 512)
            elif entry.name.endswith(_PARTIAL):
                partials.add(entry.name[1 : -len(_PARTIAL)])
        return found, partials

    def status(self, kind: str) -> dict[Path, os.stat_result]:
        """Return what the file system says of each complete file."""
        entries = [entry for entry in self._entries(kind) if not entry.name.startswith(".")]
        return {Path(entry.path): found for entry in entries if (found := _status(entry)) is not None}

    def _entries(self, kind: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / kind) as entries:
                return list(entries)
        except FileNotFoundError:
            if kind == SNAPSHOTS and (self.path / VOLUMES).exists():  # the disk was too full to make it
                return []
            raise

    def make(self, kind: str, name: str, fill: Callable[[int], None], *, mode: int = 0o600) -> None:
        """Make a file whole or not at all: fill a partial, sync it, give it its name, sync the folder.

        Args:
            kind: `volumes` or `snapshots`.
            name: Its name.
            fill: Called with the descriptor of the empty partial.
            mode: Permissions of the finished file.

        Raises:
            AlreadyExists: There is a file of that name.
        """
        partial = self.partial(kind, name)
        descriptor = self._begin(kind, name)
        try:
            try:
                self._seam("fill")
                fill(descriptor)
                self._seam("sync")
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._seam("rename")
            partial.rename(self.file(kind, name))
        except Exception:
            partial.unlink(missing_ok=True)
            raise
        self._publish(kind, name)

    def begin(self, kind: str, name: str, size: int) -> None:
        """Begin a file that is filled by `write`, piece by piece, and that `finish` gives its name.

        Raises:
            AlreadyExists: There is a file of that name.
        """
        descriptor = self._begin(kind, name)
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def write(self, kind: str, name: str, offset: int, data: bytes) -> None:
        """Write a piece of a file that was begun."""
        descriptor = os.open(self.partial(kind, name), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            write_all(descriptor, offset, data)
            if offset // SYNC_EVERY != (offset + len(data)) // SYNC_EVERY:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, kind: str, name: str) -> None:
        """Give a file that was begun its name, safe on the disk."""
        partial = self.partial(kind, name)
        descriptor = os.open(partial, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._seam("sync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._seam("rename")
        partial.rename(self.file(kind, name))
        self._publish(kind, name)

    def _begin(self, kind: str, name: str) -> int:
        final, partial = self.file(kind, name), self.partial(kind, name)
        if final.exists():
            raise AlreadyExists(f"there is a file {final} already", hint="take another name, or move it away")
        self._seam("partial")
        partial.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(partial, flags, 0o600)

    def _publish(self, kind: str, name: str) -> None:
        self._seam("sync folder")
        try:
            self.sync(kind)
        except OSError:
            # Not safe on the disk means not made, or a caller that was told of an error would find it there later.
            self.file(kind, name).unlink(missing_ok=True)
            raise

    def remove(self, kind: str, name: str) -> None:
        """Remove a complete file; that there is none is no error."""
        self._unlink(kind, self.file(kind, name))

    def discard(self, kind: str, name: str) -> None:
        """Remove an unfinished file; that there is none is no error."""
        self._unlink(kind, self.partial(kind, name))

    def _unlink(self, kind: str, path: Path) -> None:
        self._seam("unlink")
        with emptied(path):
            path.unlink(missing_ok=True)
        self._seam("sync folder")
        self.sync(kind, freed=True)

    def sync(self, kind: str, *, freed: bool = False) -> None:
        """Have the names in a folder safe on the disk, and the blocks of what was removed free if `freed`."""
        descriptor = os.open(self.path / kind, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            if freed:
                free_now(descriptor)
        finally:
            os.close(descriptor)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._locked = self.path / ".lock"
        try:
            descriptor = os.open(self._locked, flags, 0o600)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._locked = self.path  # a new file needs room
            descriptor = os.open(self._locked, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DriverError(
                f"another backend or daemon uses {self.path}", hint="give each backend a folder of its own"
            ) from None
        self._lock = descriptor

    @contextmanager
    def _scratch(self, name: str) -> Iterator[int]:
        path = self.path / f".probe-{name}"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)


def _make_directory(folder: Path) -> None:
    """Make a directory for its owner alone, whatever the umask; one that is ours is closed to the writing of others."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:  # drivers start side by side: another one has just made what lies above both
            if not each.is_dir():
                raise
            continue
        each.chmod(0o700 if each == folder else 0o755)
    found = folder.stat()
    if found.st_mode & 0o022 and found.st_uid == os.geteuid():
        folder.chmod(found.st_mode & 0o7755)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False) if entry.is_file(follow_symlinks=False) else None
    except FileNotFoundError:  # deleted since the folder was read
        return None


@contextmanager
def _full_is_no_reason() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say an error of the operating system in a sentence that begins with `what`.

    Raises:
        NoCapacity: The device or a quota is full.
        DriverError: Anything else.
    """
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        sentence = f"{what}: {error.strerror or error}{place}"
        if error.errno in _FULL:
            raise NoCapacity(sentence, hint="free some room, or use another backend") from None
        raise DriverError(sentence, hint=_HINTS.get(error.errno or 0, "")) from None


def room_hint(free: int) -> str:
    """Return the hint that goes with too little room."""
    return f"{format_size(max(0, free))} can still be promised; free some, raise `oversubscription`, or ask for less"
