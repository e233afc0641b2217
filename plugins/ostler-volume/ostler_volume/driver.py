"""`VolumeDriver`: what every driver of volumes must be able to do, and what it may offer beside that."""

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


class Found(NamedTuple):
    """A volume or snapshot as it is on the backend: its size as promised and the bytes that it takes up."""

    size: int
    allocated: int


class Inventory(NamedTuple):
    """What is on a backend, whatever any record says.

    `volumes` and `snapshots` (by `VOLUME@NAME`) are complete; `partials` are names, of both kinds, of which a crash
    left something unfinished. `devices` are the volumes that are attached on this machine.
    """

    volumes: Mapping[str, Found]
    snapshots: Mapping[str, Found]
    partials: frozenset[str]
    devices: Mapping[str, str]


class Room(NamedTuple):
    """How much room there is, in bytes.

    `total` and `free` are the device's, `allocated` is what this backend's own volumes take up, `reserved` is what must
    stay free, and `limit` is how much may be promised in all: usually what is free or its own, without the reserve,
    times `oversubscription`. Backends of a host with the same `filesystem` share what is free: what one of them has
    promised and not yet written the others cannot promise. Bytes that several volumes share are there once, and count
    once in `allocated`.
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
        16, ge=1, le=256, help="How many calls may run in this driver at once, long copies included", reload="service"
    )
    copy_budget: Seconds = Field(
        300, gt=0, help="A copy that has not moved for this long makes the driver count as stuck", reload="service"
    )
    image_timeout: Seconds = Field(
        30,
        gt=0,
        help="How long the place of an image may take to answer; after that the request for it fails, and the backend "
        "goes on",
        reload="live",
    )


class VolumeDriver(Driver):
    """Keeps volumes: named pieces of a fixed size, full of zeros or of what they were made from.

    The manager owns names, records and states; it has judged every name (so that it is safe as a file name) and calls
    for one volume do not overlap, but for reading its content. What makes something must make it whole or not at all: a
    volume is in the inventory only when it is complete and safe on the disk. What fails or is cancelled (`ctx.check()`
    raises) has left nothing complete; it and a crash leave at most a *partial*, which `discard` clears.
    Long work reports `ctx.progress(done, total, text)` in bytes.
    """

    Options = VolumeDriverOptions

    @abstractmethod
    def inventory(self) -> Inventory:
        """Return what is there now."""

    def is_present(self) -> bool:
        """Return True while the backend is the one that was initialised, with all that is on it.

        Asked before a record is changed, so that a disk that was taken away is not mistaken for lost volumes.

        Raises:
            DriverError: It is not; says why.
        """
        return True

    @abstractmethod
    def room(self) -> Room:
        """Return how much room there is now."""

    @abstractmethod
    @time_budget("copy_budget")
    def create(self, ctx: Context, name: str, size: int) -> None:
        """Make a volume of zeros.

        Raises:
            AlreadyExists: There is one of that name.
            NoCapacity: The device is full.
        """

    @abstractmethod
    @time_budget("copy_budget")
    def extend(self, ctx: Context, name: str, size: int) -> None:
        """Make a volume larger; what is new reads as zeros. When this raises the volume is as it was."""

    @abstractmethod
    @time_budget("copy_budget", is_long=False)
    def delete(self, name: str) -> None:
        """Remove a volume; that there is none is no error.

        Raises:
            Conflict: It is in use after all; nothing has changed.
        """

    @abstractmethod
    @time_budget("copy_budget", is_long=False)
    def discard(self, name: str) -> None:
        """Clear what is left of an unfinished volume, or of a snapshot `VOLUME@NAME`; what is complete stays."""

    @feature(IMAGE)
    def image_directories(self) -> list[str]:
        """Return the directories that images are taken from; callers may read all that lies there."""
        raise NotImplementedError

    @feature(IMAGE)
    def open_image(self, image: str) -> Image:
        """Open an image, once for all that is done with it; whoever asked closes it.

        What lies elsewhere than the backend itself may hang, and does not make the backend hang: `open_guarded_image`.

        Raises:
            BadImage: It is not in an image directory, not readable, or no image.
            ImageNotResponding: What it lies on does not answer in time.
        """
        raise NotImplementedError

    @feature(IMAGE)
    @time_budget("copy_budget")
    def create_from_image(self, ctx: Context, name: str, size: int, image: Image) -> None:
        """Make a volume that begins with the content of an image; `image.borrow()` lends its descriptor."""
        raise NotImplementedError

    @feature(UPLOAD)
    def begin_upload(self, ctx: Context, name: str, size: int) -> None:
        """Begin a volume whose content comes in pieces: until `finish_upload` it is a partial, full of zeros.

        Raises:
            AlreadyExists: There is one of that name.
        """
        raise NotImplementedError

    @feature(UPLOAD)
    @time_budget("copy_budget")
    def write_upload(self, name: str, offset: int, data: bytes) -> None:
        """Write a piece of what was begun; what is written twice counts once."""
        raise NotImplementedError

    @feature(UPLOAD)
    @time_budget("copy_budget")
    def finish_upload(self, ctx: Context, name: str) -> None:
        """Make the partial a volume, safe on the disk."""
        raise NotImplementedError

    @feature(CLONE)
    @time_budget("copy_budget")
    def clone(self, ctx: Context, name: str, size: int, source: str) -> None:
        """Make a volume that begins with the content of another of this backend."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget")
    def create_snapshot(self, ctx: Context, volume: str, snapshot: str) -> None:
        """Keep the content of a volume as it is now."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget", is_long=False)
    def delete_snapshot(self, volume: str, snapshot: str) -> None:
        """Remove a snapshot; that there is none is no error."""
        raise NotImplementedError

    @feature(SNAPSHOT)
    @time_budget("copy_budget")
    def create_from_snapshot(self, ctx: Context, name: str, size: int, volume: str, snapshot: str) -> None:
        """Make a volume that begins with the content of a snapshot of this backend."""
        raise NotImplementedError

    @feature(ATTACH)
    def check_attach(self) -> None:
        """Return when volumes can be attached on this machine.

        Raises:
            NotSupported: They cannot, and why.
        """
        raise NotImplementedError

    @feature(ATTACH)
    def attach(self, ctx: Context, name: str) -> str:
        """Make a volume a block device of this machine and return its path.

        Raises:
            NotSupported: This machine does not let the daemon.
        """
        raise NotImplementedError

    @feature(ATTACH)
    def detach(self, ctx: Context, name: str) -> None:
        """Take the block device of a volume away; that there is none is no error.

        Raises:
            DeviceBusy: It is mounted or open; nothing has changed.
        """
        raise NotImplementedError

    def capabilities(self) -> dict[str, Any]:
        """Return the room and the features; the manager adds what is promised."""
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
