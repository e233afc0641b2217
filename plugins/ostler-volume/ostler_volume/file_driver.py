"""`file`: volumes as sparse files in a directory of any file system."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ostler import (
    Context,
    DriverEnvironment,
    Field,
    InvalidInput,
    Seconds,
    Size,
    StoreError,
    ValidationContext,
    parse_size,
)
from ostler_volume import loop_device
from ostler_volume.backend_identity import (
    IDENTITY_KEY,
    RECORDS_KEY,
    BackendIdentity,
    check_identity,
    identity_from,
    read_id,
    write_id,
)
from ostler_volume.copy_rate import CopyRate
from ostler_volume.copying import reflink, sparse_copy
from ostler_volume.driver import (
    ATTACH,
    CLONE,
    IMAGE,
    SNAPSHOT,
    UPLOAD,
    Inventory,
    Room,
    VolumeDriver,
    VolumeDriverOptions,
)
from ostler_volume.errors import BadImage, BadSize, DeviceBusy, SnapshotNotFound, VolumeNotFound
from ostler_volume.filesystem import BlockCounter, filesystem_id, mount_point, regular_files
from ostler_volume.image_thread import ImageMounts, is_mount_or_symlink, resolve_path
from ostler_volume.images import Image, open_guarded_image
from ostler_volume.volume_directory import IMAGES, SNAPSHOTS, VOLUMES, VolumeDirectory, translate_os_errors

_PERCENT = 100
"""Per cent."""
_BUDGET_FRACTION = 0.8
"""The fraction of a call's time budget that opening an image may take."""


class FileDriverOptions(VolumeDriverOptions):
    """The options of a `file` backend."""

    path: str = Field(
        pattern="^/",
        help="Directory of the volumes, as an absolute path; created with mode 0700 if it is missing",
        reload="driver",
    )
    mounted: bool | None = Field(
        None,
        help="Whether the directory must be a mount point; by default the file system on which it was at its first "
        "use must be mounted",
        reload="driver",
    )
    max_retry_interval: Seconds = Field(
        30, gt=0, help="Maximum delay between attempts to initialise, for example until a disk is mounted"
    )
    reserve: str = Field(
        "5%",
        pattern=r"^[0-9]+([.][0-9]+)? ?(%|[kKMGTPE]?i?B)?$",
        help='Space that always stays free: a size ("10GiB") or a percentage of the file system ("5%")',
        reload="driver",
    )
    oversubscription: float = Field(
        1.0,
        ge=1,
        le=1000,
        help="How many times the space may be promised; volumes are sparse and seldom full",
        reload="driver",
    )
    image_directories: list[str] = Field(
        [],
        help="Directories of images, in addition to `images` below `path`; users who may create volumes can read all "
        "files there that the daemon can read",
        reload="driver",
    )
    copy_rate: Size = Field(
        "0B",
        help="How many bytes a second a copy may read and write at most; 0 for no limit. Copies that share blocks take "
        "no time",
        reload="live",
    )


class FileDriver(VolumeDriver):
    """Stores each volume as a sparse file; clones and snapshots share blocks on file systems that can (xfs, btrfs).

    Snapshots are separate files, and do not depend on the volume. Attaching creates a loop device, which needs root or
    the privileges of the drop-in `attach.conf`.
    """

    Options = FileDriverOptions
    features = frozenset({IMAGE, CLONE, SNAPSHOT, ATTACH, UPLOAD})
    loop_control = loop_device.LOOP_CONTROL
    """The device that creates loop devices."""

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[str, str]]:
        """Find other backends that use the same directory; see `Driver.validate`."""
        try:
            if options.reserve.endswith("%") and not 0 <= float(options.reserve[:-1]) <= _PERCENT:
                yield "reserve", f"expected at most 100%, got {options.reserve[:20]}"
            elif not options.reserve.endswith("%"):
                parse_size(options.reserve)
        except InvalidInput as error:
            yield "reserve", str(error)
        mine = resolve_path(options.path)
        for (topic, name), found in others.drivers.items():
            if isinstance(found, FileDriverOptions) and resolve_path(found.path) == mine:
                yield "path", f"{mine} is also the directory of driver {name} of service {topic}; each needs its own"

    @classmethod
    def probe(cls, options: Any) -> Iterator[tuple[str, str]]:
        """Find a directory that cannot be used or created, or is not mounted; see `Driver.probe`."""
        path = Path(options.path)
        place = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if not place.is_dir():
            yield "path", f"{place} is not a directory"
        elif not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            yield "path", f"no permission to write to {place}, or its file system is read-only"
        if options.mounted and not path.is_mount():
            yield "path", f"{path} is not a mount point"

    def __init__(self, environment: DriverEnvironment) -> None:
        super().__init__(environment)
        self.directory = VolumeDirectory(Path(self.options.path))
        self.reflink: bool | None = None
        self._image_mounts = ImageMounts()
        self._filesystem = ""
        self._known_identity: BackendIdentity | None = None
        self._block_counter = BlockCounter(self.clock.monotonic)
        self._counter_lock = threading.Lock()

    def initialise(self) -> None:
        """Check the identity of the directory, lock it and probe it; a directory in use needs no space for that."""
        path = self.directory.path
        self._known_identity, has_records = self._load_identity()
        mounted = self.options.mounted

        def verify() -> None:
            check_identity(
                path, self.name, self._known_identity, has_records=has_records, mounted=mounted, volumes=path / VOLUMES
            )

        self.directory.open(mounted=mounted is True, verify=verify)
        with translate_os_errors(f"cannot use the directory {path}"):
            self._establish_identity()
            self.reflink = self.directory.can_reflink()
            self._filesystem = filesystem_id(path)

    def _load_identity(self) -> tuple[BackendIdentity | None, bool]:
        """Return the stored identity of this backend, and whether volumes are recorded on it."""
        return identity_from(self.kv.get(IDENTITY_KEY)), bool(self.kv.get(RECORDS_KEY))

    def _establish_identity(self) -> None:
        """Read the identity in the directory, or create one, and store it; on a full disk this is done later."""
        path = self.directory.path
        try:
            found = read_id(path) or write_id(path)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            return
        self.directory.identity = found
        now = BackendIdentity(found, mount_point(path))
        if now == self._known_identity:
            return
        if self._known_identity is not None and now.id != self._known_identity.id:
            self.log.warning("%s is not the previous backend; accepted, because no volume is recorded on it", path)
        try:
            self.kv.set(IDENTITY_KEY, now.to_json())
        except StoreError as error:
            self.log.warning("cannot store the identity of %s; retrying: %s", path, error)
        else:
            self._known_identity = now

    def is_working(self) -> bool:
        """Return True while the directory is the one that was opened, and is writable."""
        self.directory.check()
        self.directory.check_writable()
        with translate_os_errors(f"cannot use the directory {self.directory.path}"):
            if self._known_identity is None or self._known_identity.id != self.directory.identity:
                self._establish_identity()
        return True

    def is_present(self) -> bool:
        """See `VolumeDriver.is_present`."""
        self.directory.check()
        return True

    def cleanup(self) -> None:
        """Unlock the directory."""
        self.directory.close()

    def capabilities(self) -> dict[str, Any]:
        """Return the space and the features; `attach` is one of them only if loop devices can be created."""
        refused = loop_device.unusable_reason(self.loop_control)
        return {
            **super().capabilities(),
            "features": sorted(self.features - ({ATTACH} if refused else set())),
            "attach_refused": refused,
            "reflink": bool(self.reflink),
        }

    def inventory(self) -> Inventory:
        """See `VolumeDriver.inventory`."""
        self.directory.check()
        with translate_os_errors(f"cannot read the directory {self.directory.path}"):
            volumes, unfinished = self.directory.list_files(VOLUMES)
            snapshots, unfinished_snapshots = self.directory.list_files(SNAPSHOTS)
            devices = loop_device.attached_devices({name: self.directory.file(VOLUMES, name) for name in volumes})
        self.directory.check()  # a disk that was removed meanwhile leaves an empty directory
        return Inventory(volumes, snapshots, frozenset(unfinished | unfinished_snapshots), devices)

    def room(self) -> Room:
        """See `VolumeDriver.room`."""
        self.directory.check()
        with translate_os_errors(f"cannot read the directory {self.directory.path}"):
            if self.reflink is None:
                self.reflink = self.directory.can_reflink()
            status = os.statvfs(self.directory.path)
            total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
            allocated = self._allocated(total - status.f_bfree * status.f_frsize)
        reserved = reserve_bytes(self.options.reserve, total)
        factor = self.options.oversubscription
        # Promises beyond the existing space are worthless on a disk that is full.
        limit = max(0, int((free + allocated - reserved) * factor)) if free > reserved or factor <= 1 else 0
        return Room(total, free, allocated, reserved, limit, self._filesystem, factor)

    def _allocated(self, used: int) -> int:
        """Return the bytes that only our files use, each block once.

        A block that several files share is promised several times and exists once. So what `st_blocks` counts for each
        of them must not raise the limit: the first write to a shared block needs a new one.
        """
        sizes = {**self.directory.file_stats(VOLUMES), **self.directory.file_stats(SNAPSHOTS)}
        allocated = sum(found.st_blocks for found in sizes.values()) * 512
        if self.reflink is not False:
            with self._counter_lock:
                exact = self._block_counter.count(sizes, self._own_images())
            allocated = allocated if exact is None else exact
        return min(allocated, used)

    def _own_images(self) -> Iterable[Path]:
        """Return the images that may share blocks with volumes; other file systems mounted there are skipped."""
        images = self.directory.path / IMAGES
        return () if is_mount_or_symlink(images) else regular_files(images)

    def create(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.create`."""
        self._create_file(ctx, VOLUMES, name, lambda descriptor: os.ftruncate(descriptor, size))

    def image_directories(self) -> list[str]:
        """See `VolumeDriver.image_directories`."""
        return [str(self.directory.path / IMAGES), *self.options.image_directories]

    def open_image(self, image: str) -> Image:
        """See `VolumeDriver.open_image`."""
        # Before the time budget of this call ends: the file system of the image hangs, not this backend.
        limit = min(self.options.image_timeout, _BUDGET_FRACTION * self.options.call_timeout)
        return open_guarded_image(image, self.image_directories(), self._image_mounts, limit)

    def create_from_image(self, ctx: Context, name: str, size: int, image: Image) -> None:
        """See `VolumeDriver.create_from_image`."""
        if image.size > size:
            raise BadImage(f"the image {image.path} is larger than the volume {name}", hint="use a larger size")
        with image.borrow() as source:
            self._create_file(
                ctx, VOLUMES, name, lambda target: self._copy_content(ctx, source, target, image.size, size)
            )

    def begin_upload(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.begin_upload`."""
        self.directory.check()
        with translate_os_errors(f"cannot create {name}"):
            self.directory.begin(VOLUMES, name, size)

    def write_upload(self, name: str, offset: int, data: bytes) -> None:
        """See `VolumeDriver.write_upload`."""
        self.directory.check()
        with translate_os_errors(f"cannot write {name}"):
            self.directory.write(VOLUMES, name, offset, data)

    def finish_upload(self, ctx: Context, name: str) -> None:
        """See `VolumeDriver.finish_upload`."""
        self.directory.check()
        ctx.check()
        with translate_os_errors(f"cannot create {name}"):
            self.directory.finish(VOLUMES, name)

    def clone(self, ctx: Context, name: str, size: int, source: str) -> None:
        """See `VolumeDriver.clone`."""
        self._copy_file(ctx, self.directory.file(VOLUMES, source), VOLUMES, name, size)

    def create_snapshot(self, ctx: Context, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.create_snapshot`."""
        self._copy_file(ctx, self.directory.file(VOLUMES, volume), SNAPSHOTS, f"{volume}@{snapshot}", 0)

    def create_from_snapshot(self, ctx: Context, name: str, size: int, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.create_from_snapshot`."""
        self._copy_file(ctx, self.directory.file(SNAPSHOTS, f"{volume}@{snapshot}"), VOLUMES, name, size)

    def extend(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.extend`."""
        path = self.directory.file(VOLUMES, name)
        with translate_os_errors(f"cannot extend {name}"), path.open("r+b") as file:
            if size < os.fstat(file.fileno()).st_size:
                raise BadSize(f"{name} cannot become smaller", hint="a volume can only be extended", name=name)
            ctx.check()
            os.ftruncate(file.fileno(), size)
            os.fsync(file.fileno())

    def delete(self, name: str) -> None:
        """See `VolumeDriver.delete`."""
        path = self.directory.file(VOLUMES, name)
        if device := loop_device.attached_devices({name: path}).get(name):
            raise DeviceBusy(
                f"{name} is in use by {device}", hint=f"detach it, or run `losetup -d {device}`", name=name
            )
        self._remove_file(VOLUMES, name)

    def discard(self, name: str) -> None:
        """See `VolumeDriver.discard`."""
        self.directory.check()
        with translate_os_errors(f"cannot remove the unfinished file of {name}"):
            self.directory.discard(SNAPSHOTS if "@" in name else VOLUMES, name)

    def delete_snapshot(self, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.delete_snapshot`."""
        self._remove_file(SNAPSHOTS, f"{volume}@{snapshot}")

    def check_attach(self) -> None:
        """See `VolumeDriver.check_attach`."""
        loop_device.check_usable(self.loop_control)

    def attach(self, ctx: Context, name: str) -> str:
        """See `VolumeDriver.attach`."""
        path = self.directory.file(VOLUMES, name)
        if not path.exists():
            raise VolumeNotFound(f"the file of {name} is missing: {path}", name=name)
        ctx.check()
        return loop_device.attached_devices({name: path}).get(name) or loop_device.attach(path, self.loop_control)

    def detach(self, ctx: Context, name: str) -> None:
        """See `VolumeDriver.detach`."""
        device = loop_device.attached_devices({name: self.directory.file(VOLUMES, name)}).get(name)
        if device:
            loop_device.detach(device, ctx.check)

    def _create_file(self, ctx: Context, kind: str, name: str, fill: Callable[[int], None], mode: int = 0o600) -> None:
        self.directory.check()
        ctx.check()
        with translate_os_errors(f"cannot create {name}"):
            self.directory.make(kind, name, fill, mode=mode)

    def _copy_file(self, ctx: Context, source: Path, kind: str, name: str, size: int) -> None:
        """Copy a file of this backend; a `size` of 0 means that of the source."""
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            missing = SnapshotNotFound if source.parent.name == SNAPSHOTS else VolumeNotFound
            raise missing(f"the file of {source.name} is missing: {source}", name=source.name) from None
        try:
            length = os.fstat(descriptor).st_size
            mode = 0o400 if kind == SNAPSHOTS else 0o600
            self._create_file(
                ctx, kind, name, lambda to: self._copy_content(ctx, descriptor, to, length, size or length), mode
            )
        finally:
            os.close(descriptor)

    def _copy_content(self, ctx: Context, source: int, target: int, length: int, size: int) -> None:
        rate = CopyRate(int(self.options.copy_rate))

        def report(done: int, total: int) -> None:
            ctx.check()
            ctx.progress(done, total, "copying")

        def on_piece(done: int, total: int) -> None:
            report(done, total)
            rate.wait(done, partial(report, done, total))

        # Blocks can also be shared with an image on the same file system.
        if reflink(source, target):
            with self._counter_lock:
                self._block_counter.forget_shared(os.fstat(source).st_ino)
        else:
            sparse_copy(source, target, length, on_piece)
        os.ftruncate(target, size)

    def _remove_file(self, kind: str, name: str) -> None:
        self.directory.check()
        with translate_os_errors(f"cannot delete {name}"):
            self.directory.remove(kind, name)
        with self._counter_lock:
            self._block_counter.forget_shared()


def reserve_bytes(reserve: str, total: int) -> int:
    """Return the bytes of a reserve that is a size or a percentage of the total.

    Raises:
        InvalidInput: It is neither.
    """
    if reserve.endswith("%"):
        return int(total * float(reserve[:-1]) / 100)
    return parse_size(reserve)
