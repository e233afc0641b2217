"""Volume drivers on file systems in memory: slow, hung, read-only, or telling what is not so, as a test wants."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from ostler import DriverError, InternalError, NoCapacity
from ostler.aio import Worker
from ostler_volume.driver import BackendObject, Inventory, Room, VolumeDriver, VolumeDriverOptions
from ostler_volume.errors import AlreadyExists

GIB = 2**30

HELD: Counter[Any] = Counter()
"""How many threads of each pool are in a simulated disk that does not answer now."""


class Filesystem:
    """Room that disks share; `foreign` bytes are taken by others than Ostler."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.foreign = name, total, 0


class Disk:
    """The state of one backend, which outlives the driver: a restart finds it as it was."""

    def __init__(self, host: str, name: str, filesystem: Filesystem):
        self.host, self.name, self.filesystem = host, name, filesystem
        self.volumes: dict[str, int] = {}
        self.mode = "well"
        """`well`, `slow`, `hung`, `readonly`, `garbled` (it cannot say what it has) or `boastful` (it has less)."""
        self.delay = 0.0
        self.released = threading.Event()
        self.overfilled: list[str] = []
        self.call_later: Any = None
        self.lock = threading.Lock()

    def set(self, mode: str, delay: float = 0.0) -> None:
        self.mode, self.delay = mode, delay
        if mode == "hung":
            self.released.clear()
        else:
            self.released.set()

    def answer(self) -> None:
        """Wait as long as the disk needs. On a thread of the driver."""
        if self.mode == "hung":
            self._wait(self.released)
        elif self.mode == "slow" and self.delay:
            over = threading.Event()
            self.call_later(self.delay, over.set)
            self._wait(over)

    def _wait(self, event: threading.Event) -> None:
        thread = threading.current_thread()
        pool = thread.pool if isinstance(thread, Worker) else None
        HELD[pool] += 1
        try:
            assert event.wait(120), "nobody let the simulated disk go on"
        finally:
            HELD[pool] -= 1


DISKS: dict[tuple[str, str], Disk] = {}
FILESYSTEMS: dict[str, list[Disk]] = {}


def promised(filesystem: Filesystem) -> int:
    return sum(sum(disk.volumes.values()) for disk in FILESYSTEMS[filesystem.name])


class DiskDriver(VolumeDriver):
    """A volume is an entry of `Disk.volumes`; nothing of it is written, so all of it is a promise."""

    class Options(VolumeDriverOptions):
        pass

    @property
    def _disk(self) -> Disk:
        return DISKS[self.environment.host, self.name]

    def initialise(self):
        self._disk.answer()

    def is_working(self):
        if self._disk.mode == "readonly":
            raise DriverError("the file system is read-only")
        return True

    def inventory(self):
        disk = self._disk
        disk.answer()
        return Inventory({name: BackendObject(size, 0) for name, size in disk.volumes.items()}, {}, frozenset(), {})

    def room(self):
        disk = self._disk
        disk.answer()
        if disk.mode == "garbled":
            raise InternalError("the array answers with something that is no number")
        filesystem = disk.filesystem
        free = filesystem.total - filesystem.foreign + (100 * GIB if disk.mode == "boastful" else 0)
        return Room(filesystem.total, free, 0, 0, free, filesystem.name)

    def create(self, ctx, name, size):
        disk = self._disk
        disk.answer()
        ctx.check()
        with disk.lock:
            if disk.mode == "readonly":
                raise DriverError("the file system is read-only")
            if name in disk.volumes:
                raise AlreadyExists(f"there is {name}")
            if promised(disk.filesystem) + size > disk.filesystem.total - disk.filesystem.foreign:
                if disk.mode != "boastful" and not any(d.mode == "boastful" for d in FILESYSTEMS[disk.filesystem.name]):
                    disk.overfilled.append(name)
                raise NoCapacity("the device is full")
            disk.volumes[name] = size

    def extend(self, ctx, name, size):
        raise NotImplementedError

    def delete(self, name):
        disk = self._disk
        disk.answer()
        if disk.mode == "readonly":
            raise DriverError("the file system is read-only")
        with disk.lock:
            disk.volumes.pop(name, None)

    def discard(self, name):
        self._disk.answer()
