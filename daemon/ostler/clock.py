"""The only source of time.

Everything that needs the time is handed a `Clock`; `SystemClock` is the kernel's, `FakeClock` is set by a test.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from ostler.types import BootStamp

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What time it is, in four ways; safe on any thread."""

    def wall(self) -> float:
        """Return seconds since 1970; may jump when an administrator sets the clock."""
        ...

    def monotonic(self) -> float:
        """Return seconds of CLOCK_MONOTONIC, the clock of timers and deadlines (and of systemd's MONOTONIC_USEC)."""
        ...

    def boot(self) -> float:
        """Return seconds of CLOCK_BOOTTIME, which goes on while the machine sleeps."""
        ...

    def boot_id(self) -> str:
        """Return the kernel's id of this boot."""
        ...


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = ""

    def wall(self) -> float:
        """See `Clock.wall`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def boot(self) -> float:
        """See `Clock.boot`."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """See `Clock.boot_id`."""
        if not self._boot_id:
            self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        return self._boot_id


class FakeClock:
    """A clock that does not move until a test moves it; the three clocks move together unless one is set apart.

    Args:
        wall: Seconds since 1970 at the start.
        monotonic: Seconds of the monotonic clock at the start.
        boot_id: The id of the boot it pretends to be in.
    """

    def __init__(self, wall: float = 1_800_000_000.0, monotonic: float = 1000.0, boot_id: str = "fake-boot") -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._boot = monotonic
        self._boot_id = boot_id

    def wall(self) -> float:
        """See `Clock.wall`."""
        return self._wall

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic

    def boot(self) -> float:
        """See `Clock.boot`."""
        return self._boot

    def boot_id(self) -> str:
        """See `Clock.boot_id`."""
        return self._boot_id

    def advance(self, seconds: float) -> None:
        """Let time pass on all clocks."""
        self._wall += seconds
        self._monotonic += seconds
        self._boot += seconds

    def set_wall(self, wall: float) -> None:
        """Set the wall clock alone, as an administrator or NTP would."""
        self._wall = wall

    def reboot(self, boot_id: str) -> None:
        """Start a new boot: a new id, and the boot clock at zero."""
        self._boot_id, self._boot = boot_id, 0.0


def boot_stamp(clock: Clock) -> BootStamp:
    """Return this moment as it is written into records."""
    return BootStamp(clock.boot_id(), clock.boot(), clock.wall())


def shared_boot_id(clock: Clock, path: Path = _BOOT_ID) -> str:
    """Return the boot id by which two daemons on one kernel know each other; empty when it is a container's own.

    systemd-nspawn mounts a file over the kernel's. A daemon in a unit's sandbox, in the same container, sees the
    kernel's all the same, so that the two would not agree.

    Args:
        clock: The source of the boot id.
        path: Where the kernel says it.
    """
    try:
        is_mounted_over = path.stat().st_dev != path.parent.stat().st_dev
    except OSError:  # no /proc is mounted
        return ""
    return "" if is_mounted_over else clock.boot_id()
