"""`VolumeDriver`: the contract of volume drivers, with its required and optional methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from ostler import Context, Driver, DriverOptions, Field, Seconds, feature, time_budget
from ostler_volume.images import Image

IMAGE = "image"
CLONE = "clone"
SNAPSHOT = "snapshot"
ATTACH = "attach"
UPLOAD = "upload"


class BackendObject(NamedTuple):
    """A volume or snapshot on the backend: its nominal size, and the bytes that it uses."""

    size: int
    allocated: int


class Inventory(NamedTuple):
    """The content of a backend, independent of the records.

    `volumes` and `snapshots` (by `VOLUME@NAME`) are complete; `partials` are names of both kinds that a crash has left
    unfinished. `devices` are the volumes that are attached on this machine.
    """

    volumes: Mapping[str, BackendObject]
    snapshots: Mapping[str, BackendObject]
    partials: frozenset[str]
    devices: Mapping[str, str]


class Room(NamedTuple):
    """The space of a backend, in bytes.

    `total` and `free` are those of the device, `allocated` is used by this backend's own volumes, `reserved` must stay
    free, and `limit` is the maximum of all promises: usually the free and allocated space without the reserve, times
    `oversubscription`. Backends of a host with the same `filesystem` share the free space: what one of them has
    promised and not yet written the others cannot promise. Blocks that several volumes share count once in `allocated`.
    """

    total: int
    free: int
    allocated: int
    reserved: int
    limit: int
    filesystem: str = ""
    oversubscription: float = 1.0


class VolumeDriverOptions(DriverOptions):
    """The options that every driver of volumes has."""

    workers: int = Field(
        16,
        ge=1,
        le=256,
        help="Maximum number of concurrent calls into this driver, including long copies",
        reload="driver",
    )
    copy_budget: Seconds = Field(
        300, gt=0, help="The driver counts as stuck if a copy makes no progress for this long", reload="live"
    )
    image_timeout: Seconds = Field(
        30,
        gt=0,
        help="How long the file system of an image may take to respond; after that the request fails, and the backend "
        "keeps working",
        reload="live",
    )


class VolumeDriver(Driver):
    """Stores volumes: named blocks of data of a fixed size, created from zeros or from an origin.

    The manager owns names, records and states; it has validated every name (which is safe as a file name), and calls
    for one volume do not overlap, except to read its content. Creation must be atomic: a volume is in the inventory
    only if it is complete and synced to disk. If an operation fails or is cancelled (`ctx.check()` raises) nothing
    complete is left; failures and crashes leave at most a *partial*, which `discard` removes. Long work reports
    `ctx.progress(done, total, text)` in bytes.
    """

    Options = VolumeDriverOptions

    @abstractmethod
    def inventory(self) -> Inventory:
        """Return the current content."""

    def is_present(self) -> bool:
        """Return True while the backend is the one that was initialised.

        Called before a record is changed, so that a removed disk is not mistaken for lost volumes.

        Raises:
            DriverError: It is not; the message says why.
        """
        return True

    @abstractmethod
    def room(self) -> Room:
        """Return the current space."""

    @abstractmethod
    @time_budget("copy_budget")
    def create(self, ctx: Context, name: str, size: int) -> None:
        """Create a volume of zeros.

        Raises:
            AlreadyExists: A volume of that name exists.
            NoCapacity: The device is full.
        """

    @abstractmethod
    @time_budget("copy_budget")
    def extend(self, ctx: Context, name: str, size: int) -> None:
        """Extend a volume with zeros. If this raises, the volume has not changed."""

    @abstractmethod
    @time_budget("copy_budget", is_long=False)
    def delete(self, name: str) -> None:
        """Remove a volume; a missing one is not an error.

        Raises:
            Conflict: It is in use; nothing has changed.
        """

    @abstractmethod
    @time_budget("copy_budget", is_long=False)
    def discard(self, name: str) -> None:
        """Remove the partial of a volume, or of a snapshot `VOLUME@NAME`; complete ones are not removed."""

    @feature(IMAGE)
    def image_directories(self) -> list[str]:
        """Return the directories of images; callers may read all files there."""
        raise NotImplementedError

    @feature(IMAGE)
    def open_image(self, image: str) -> Image:
        """Open an image, once for all operations on it; the caller closes it.

        Another file system than the backend's may hang; `open_guarded_image` keeps that from blocking the backend.

        Raises:
            BadImage: It is not in an image directory, not readable, or not an image.
            ImageNotResponding: Its file system does not respond in time.
        """
        raise NotImplementedError

    @feature(IMAGE)
    @time_budget("copy_budget")
    def create_from_image(self, ctx: Context, name: str, size: int, image: Image) -> None:
        """Create a volume that begins with the content of an image; `image.borrow()` returns a descriptor."""
        raise NotImplementedError

    @feature(UPLOAD)
    def begin_upload(self, ctx: Context, name: str, size: int) -> None:
        """Begin a volume whose content is uploaded in pieces: until `finish_upload` it is a partial of zeros.

        Raises:
            AlreadyExists: A volume of that name exists.
        """
        raise NotImplementedError

    @feature(UPLOAD)
    @time_budget("copy_budget")
    def write_upload(self, name: str, offset: int, data: bytes) -> None:
        """Write a piece of an upload; a piece may be written twice."""
        raise NotImplementedError

    @feature(UPLOAD)
    @time_budget("copy_budget")
    def finish_upload(self, ctx: Context, name: str) -> None:
        """Complete the volume and sync it to disk."""
        raise NotImplementedError

    @feature(CLONE)
    @time_budget("copy_budget")
    def clone(self, ctx: Context, name: str, size: int, source: str) -> None:
        """Create a volume that begins with the content of another one of this backend."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget")
    def create_snapshot(self, ctx: Context, volume: str, snapshot: str) -> None:
        """Create a snapshot of a volume."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget", is_long=False)
    def delete_snapshot(self, volume: str, snapshot: str) -> None:
        """Remove a snapshot; a missing one is not an error."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget")
    def create_from_snapshot(self, ctx: Context, name: str, size: int, volume: str, snapshot: str) -> None:
        """Create a volume that begins with the content of a snapshot of this backend."""
        raise NotImplementedError

    @feature(ATTACH)
    def check_attach(self) -> None:
        """Check that volumes can be attached on this machine.

        Raises:
            NotSupported: They cannot; the message says why.
        """
        raise NotImplementedError

    @feature(ATTACH)
    def attach(self, ctx: Context, name: str) -> str:
        """Attach a volume as a block device of this machine and return its path.

        Raises:
            NotSupported: This machine does not allow the daemon to do that.
        """
        raise NotImplementedError

    @feature(ATTACH)
    def detach(self, ctx: Context, name: str) -> None:
        """Remove the block device of a volume; a missing one is not an error.

        Raises:
            DeviceBusy: It is mounted or open; nothing has changed.
        """
        raise NotImplementedError

    def capabilities(self) -> dict[str, Any]:
        """Return the space and the features; the manager adds the promises."""
        room = self.room()
        return {
            "total_bytes": room.total,
            "free_bytes": room.free,
            "allocated_bytes": room.allocated,
            "reserved_bytes": room.reserved,
            "promise_limit_bytes": room.limit,
            "filesystem": room.filesystem,
            "oversubscription": room.oversubscription,
            "features": sorted(self.features),
        }
