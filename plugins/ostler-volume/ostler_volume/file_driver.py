"""`file`: volumes as sparse files in a folder of any file system."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ostler import (
    Context,
    DriverEnvironment,
    Field,
    InvalidInput,
    Seconds,
    StoreError,
    ValidationContext,
    parse_size,
)
from ostler_volume import loop
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
from ostler_volume.filesystem import WrittenBytes, filesystem_id, mount_point, regular_files
from ostler_volume.folder import IMAGES, SNAPSHOTS, VOLUMES, Folder, told
from ostler_volume.identity import KEY, RECORDS_KEY, Identity, check_identity, identity_from, read_id, write_id
from ostler_volume.image_source import Places, lies_elsewhere, resolved
from ostler_volume.images import Image, open_guarded_image

_WHOLE = 100
"""Per cent."""
_PART_OF_BUDGET = 0.8
"""The part of a call's time budget that an image may take to be opened."""


class FileDriverOptions(VolumeDriverOptions):
    """The options of a `file` backend."""

    path: str = Field(
        pattern="^/",
        help="Folder for the volumes, as an absolute path; made with mode 0700 when it is missing",
        reload="driver",
    )
    mounted: bool | None = Field(
        None,
        help="Whether the folder must be a mount point; without this option the file system that the folder was on at "
        "its first use must be mounted",
        reload="driver",
    )
    retry_interval_max: Seconds = Field(
        30, gt=0, help="The longest wait between tries to initialise, for instance until a disk is mounted"
    )
    reserve: str = Field(
        "5%",
        pattern=r"^[0-9]+([.][0-9]+)? ?(%|[kKMGTPE]?i?B)?$",
        help='Room that always stays free: a size ("10GiB") or a part of the file system ("5%")',
        reload="driver",
    )
    oversubscription: float = Field(
        1.0,
        ge=1,
        le=1000,
        help="How many times the room may be promised; volumes are sparse and seldom full",
        reload="driver",
    )
    image_folders: list[str] = Field(
        [],
        help="Directories that images may be taken from, beside `images` below `path`; whoever may create a volume can "
        "read all that the daemon can read there",
        reload="driver",
    )


class FileDriver(VolumeDriver):
    """Keeps each volume as a sparse file; clones and snapshots share blocks where the file system can (xfs, btrfs).

    Snapshots are files of their own, so that they do not depend on the volume. Attaching makes a loop device, which
    needs root or what the drop-in `attach.conf` gives.
    """

    Options = FileDriverOptions
    features = frozenset({IMAGE, CLONE, SNAPSHOT, ATTACH, UPLOAD})

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[str, str]]:
        """Find other backends that would keep their volumes in the same folder; see `Driver.validate`."""
        try:
            if options.reserve.endswith("%") and not 0 <= float(options.reserve[:-1]) <= _WHOLE:
                yield "reserve", f"expected at most 100%, got {options.reserve[:20]}"
            elif not options.reserve.endswith("%"):
                parse_size(options.reserve)
        except InvalidInput as error:
            yield "reserve", str(error)
        mine = resolved(options.path)
        for (topic, name), found in others.drivers.items():
            if isinstance(found, FileDriverOptions) and resolved(found.path) == mine:
                yield "path", f"{mine} is the folder of driver {name} of service {topic} as well; give each its own"

    def __init__(self, environment: DriverEnvironment) -> None:
        super().__init__(environment)
        self.folder = Folder(Path(self.options.path))
        self.reflink: bool | None = None
        self._places = Places()
        self._filesystem = ""
        self._known: Identity | None = None
        self._written = WrittenBytes(self.clock.monotonic)
        self._counting = threading.Lock()

    def initialise(self) -> None:
        """Make sure that the folder is the backend it was, lock it and probe it; needs no room where it was used."""
        path = self.folder.path
        self._known, has_records = self._remembered()
        mounted = self.options.mounted

        def verify() -> None:
            check_identity(
                path, self.name, self._known, has_records=has_records, mounted=mounted, volumes=path / VOLUMES
            )

        self.folder.open(mounted=mounted is True, verify=verify)
        with told(f"the folder {path} cannot be used"):
            self._identify()
            self.reflink = self.folder.can_reflink()
            self._filesystem = filesystem_id(path)

    def _remembered(self) -> tuple[Identity | None, bool]:
        """Return what the database has on this backend, and whether volumes are recorded on it."""
        return identity_from(self.kv.get(KEY)), bool(self.kv.get(RECORDS_KEY))

    def _identify(self) -> None:
        """Find the identity in the folder, or give it one, and remember it; what a full disk prevents is done later."""
        path = self.folder.path
        try:
            found = read_id(path) or write_id(path)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            return
        self.folder.identity = found
        now = Identity(found, mount_point(path))
        if now == self._known:
            return
        if self._known is not None and now.id != self._known.id:
            self.log.warning("%s is another backend than before; no volume is recorded on it", path)
        try:
            self.kv.set(KEY, now.to_json())
        except StoreError as error:
            self.log.warning("the identity of %s cannot be kept now, it is tried again: %s", path, error)
        else:
            self._known = now

    def is_working(self) -> bool:
        """Return True while the folder is the one that was there at the start, and can be written."""
        self.folder.check()
        self.folder.check_writable()
        with told(f"the folder {self.folder.path} cannot be used"):
            if self._known is None or self._known.id != self.folder.identity:
                self._identify()
        return True

    def is_present(self) -> bool:
        """See `VolumeDriver.is_present`."""
        self.folder.check()
        return True

    def cleanup(self) -> None:
        """Unlock the folder."""
        self.folder.close()

    def capabilities(self) -> dict[str, Any]:
        """Return the room and the features; `attach` is one of them only where loop devices can be made."""
        refused = loop.usable()
        return {
            **super().capabilities(),
            "features": sorted(self.features - ({ATTACH} if refused else set())),
            "attach_refused": refused,
            "reflink": bool(self.reflink),
        }

    def inventory(self) -> Inventory:
        """See `VolumeDriver.inventory`."""
        self.folder.check()
        with told(f"the folder {self.folder.path} cannot be read"):
            volumes, unfinished = self.folder.listing(VOLUMES)
            snapshots, unfinished_snapshots = self.folder.listing(SNAPSHOTS)
            devices = loop.attached({name: self.folder.file(VOLUMES, name) for name in volumes})
        self.folder.check()  # a disk that was taken away while we looked leaves an empty folder
        return Inventory(volumes, snapshots, frozenset(unfinished | unfinished_snapshots), devices)

    def room(self) -> Room:
        """See `VolumeDriver.room`."""
        self.folder.check()
        with told(f"the folder {self.folder.path} cannot be read"):
            if self.reflink is None:
                self.reflink = self.folder.can_reflink()
            status = os.statvfs(self.folder.path)
            total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
            allocated = self._allocated(total - status.f_bfree * status.f_frsize)
        reserved = reserve_bytes(self.options.reserve, total)
        factor = self.options.oversubscription
        # What is promised beyond what is there is worth nothing on a disk that has nothing more to give.
        limit = max(0, int((free + allocated - reserved) * factor)) if free > reserved or factor <= 1 else 0
        return Room(total, free, allocated, reserved, limit, self._filesystem, factor)

    def _allocated(self, used: int) -> int:
        """Return the bytes that are there for our files alone, each block once.

        A block that several files share is given away several times and there once. So what `st_blocks` counts in each
        of them must not raise the limit: the first write to it needs a new block.
        """
        sizes = {**self.folder.status(VOLUMES), **self.folder.status(SNAPSHOTS)}
        allocated = sum(found.st_blocks for found in sizes.values()) * 512
        if self.reflink is not False:
            with self._counting:
                exact = self._written.count(sizes, self._own_images())
            allocated = allocated if exact is None else exact
        return min(allocated, used)

    def _own_images(self) -> Iterable[Path]:
        """Return the images that may share blocks with volumes; what is mounted there is none of ours, and may hang."""
        images = self.folder.path / IMAGES
        return () if lies_elsewhere(images) else regular_files(images)

    def create(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.create`."""
        self._make(ctx, VOLUMES, name, lambda descriptor: os.ftruncate(descriptor, size))

    def image_directories(self) -> list[str]:
        """See `VolumeDriver.image_directories`."""
        return [str(self.folder.path / IMAGES), *self.options.image_folders]

    def open_image(self, image: str) -> Image:
        """See `VolumeDriver.open_image`."""
        # Sooner than the time budget of this call ends: what hangs is where the image lies, and not this backend.
        limit = min(self.options.image_timeout, _PART_OF_BUDGET * self.options.call_timeout)
        return open_guarded_image(image, self.image_directories(), self._places, limit)

    def create_from_image(self, ctx: Context, name: str, size: int, image: Image) -> None:
        """See `VolumeDriver.create_from_image`."""
        if image.size > size:
            raise BadImage(f"the image {image.path} is larger than the volume {name}", hint="ask for a larger volume")
        with image.borrow() as source:
            self._make(ctx, VOLUMES, name, lambda target: self._fill(ctx, source, target, image.size, size))

    def begin_upload(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.begin_upload`."""
        self.folder.check()
        with told(f"{name} cannot be made"):
            self.folder.begin(VOLUMES, name, size)

    def write_upload(self, name: str, offset: int, data: bytes) -> None:
        """See `VolumeDriver.write_upload`."""
        self.folder.check()
        with told(f"{name} cannot be written"):
            self.folder.write(VOLUMES, name, offset, data)

    def finish_upload(self, ctx: Context, name: str) -> None:
        """See `VolumeDriver.finish_upload`."""
        self.folder.check()
        ctx.check()
        with told(f"{name} cannot be made"):
            self.folder.finish(VOLUMES, name)

    def clone(self, ctx: Context, name: str, size: int, source: str) -> None:
        """See `VolumeDriver.clone`."""
        self._copy(ctx, self.folder.file(VOLUMES, source), VOLUMES, name, size)

    def create_snapshot(self, ctx: Context, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.create_snapshot`."""
        self._copy(ctx, self.folder.file(VOLUMES, volume), SNAPSHOTS, f"{volume}@{snapshot}", 0)

    def create_from_snapshot(self, ctx: Context, name: str, size: int, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.create_from_snapshot`."""
        self._copy(ctx, self.folder.file(SNAPSHOTS, f"{volume}@{snapshot}"), VOLUMES, name, size)

    def extend(self, ctx: Context, name: str, size: int) -> None:
        """See `VolumeDriver.extend`."""
        path = self.folder.file(VOLUMES, name)
        with told(f"{name} cannot be extended"), path.open("r+b") as file:
            if size < os.fstat(file.fileno()).st_size:
                raise BadSize(f"{name} would become smaller", hint="a volume can only be extended", name=name)
            ctx.check()
            os.ftruncate(file.fileno(), size)
            os.fsync(file.fileno())

    def delete(self, name: str) -> None:
        """See `VolumeDriver.delete`."""
        path = self.folder.file(VOLUMES, name)
        if device := loop.attached({name: path}).get(name):
            raise DeviceBusy(f"{device} is made of {name}", hint=f"detach it, or `losetup -d {device}`", name=name)
        self._remove(VOLUMES, name)

    def discard(self, name: str) -> None:
        """See `VolumeDriver.discard`."""
        self.folder.check()
        with told(f"what is left of {name} cannot be cleared away"):
            self.folder.discard(SNAPSHOTS if "@" in name else VOLUMES, name)

    def delete_snapshot(self, volume: str, snapshot: str) -> None:
        """See `VolumeDriver.delete_snapshot`."""
        self._remove(SNAPSHOTS, f"{volume}@{snapshot}")

    def check_attach(self) -> None:
        """See `VolumeDriver.check_attach`."""
        loop.check_usable()

    def attach(self, ctx: Context, name: str) -> str:
        """See `VolumeDriver.attach`."""
        path = self.folder.file(VOLUMES, name)
        if not path.exists():
            raise VolumeNotFound(f"the file of {name} is missing: {path}", name=name)
        ctx.check()
        return loop.attached({name: path}).get(name) or loop.attach(path)

    def detach(self, ctx: Context, name: str) -> None:
        """See `VolumeDriver.detach`."""
        device = loop.attached({name: self.folder.file(VOLUMES, name)}).get(name)
        if device:
            loop.detach(device, ctx.check)

    def _make(self, ctx: Context, kind: str, name: str, fill: Callable[[int], None], mode: int = 0o600) -> None:
        self.folder.check()
        ctx.check()
        with told(f"{name} cannot be made"):
            self.folder.make(kind, name, fill, mode=mode)

    def _copy(self, ctx: Context, source: Path, kind: str, name: str, size: int) -> None:
        """Copy a file of ours; a `size` of 0 stands for as large as the source."""
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            missing = SnapshotNotFound if source.parent.name == SNAPSHOTS else VolumeNotFound
            raise missing(f"the file of {source.name} is missing: {source}", name=source.name) from None
        try:
            length = os.fstat(descriptor).st_size
            mode = 0o400 if kind == SNAPSHOTS else 0o600
            self._make(ctx, kind, name, lambda to: self._fill(ctx, descriptor, to, length, size or length), mode)
        finally:
            os.close(descriptor)

    def _fill(self, ctx: Context, source: int, target: int, length: int, size: int) -> None:
        def on_piece(done: int, total: int) -> None:
            ctx.check()
            ctx.progress(done, total, "copying")

        # A file system may share blocks with an image as well, when that lies on it.
        if reflink(source, target):
            with self._counting:
                self._written.forget_shared(os.fstat(source).st_ino)
        else:
            sparse_copy(source, target, length, on_piece)
        os.ftruncate(target, size)

    def _remove(self, kind: str, name: str) -> None:
        self.folder.check()
        with told(f"{name} cannot be deleted"):
            self.folder.remove(kind, name)
        with self._counting:
            self._written.forget_shared()


def reserve_bytes(reserve: str, total: int) -> int:
    """Return the bytes of a reserve that is a size or a percentage of the total.

    Raises:
        InvalidInput: It is neither.
    """
    if reserve.endswith("%"):
        return int(total * float(reserve[:-1]) / 100)
    return parse_size(reserve)
