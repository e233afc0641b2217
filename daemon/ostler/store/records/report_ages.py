"""The age of reports, without relying on wall clocks."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable

import msgspec

from ostler.clock import Clock
from ostler.types import BootStamp


class _LastReport(msgspec.Struct, frozen=True):
    number: int
    at: float


class ReportAges:
    """Determines the age of reports.

    A report from this boot of this machine has an age by the boot clock. One from an earlier boot of this host is
    infinitely old. For other hosts, with clocks of their own, the age counts from when this host saw their number grow,
    by its own monotonic clock; only for the first sight of a row its wall time is used. Safe on any thread.

    Args:
        clock: The source of time.
        host: This host's name.
    """

    def __init__(self, clock: Clock, host: str = "") -> None:
        self._clock = clock
        self._host = host
        self._seen: dict[Hashable, _LastReport] = {}
        self._lock = threading.Lock()

    def age(self, key: Hashable, host: str, stamp: BootStamp, number: int) -> float:
        """Return the age in seconds of a report.

        Args:
            key: The owner of the reports.
            host: The host of the owner.
            stamp: Its own time of creation.
            number: Its number, which grows with each report.
        """
        if stamp.boot_id == self._clock.boot_id():
            return max(0.0, self._clock.boot() - stamp.boot_time)
        if host == self._host:
            return math.inf
        now = self._clock.monotonic()
        with self._lock:
            seen = self._seen.get(key)
            if seen is None:
                seen = _LastReport(number, now - max(0.0, self._clock.wall() - stamp.wall))
            elif seen.number != number:
                seen = _LastReport(number, now)
            self._seen[key] = seen
        return now - seen.at
