"""How long ago somebody gave a sign of life, without trust in wall clocks."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable

import msgspec

from ostler.clock import Clock
from ostler.types import BootStamp


class _Seen(msgspec.Struct, frozen=True):
    number: int
    at: float


class Liveness:
    """Judges the age of reports.

    A report from this boot of this machine is as old as the boot clock says. One from an earlier boot of this host is
    infinitely old. For other hosts, whose clocks are theirs, what counts is when we saw their number grow, on our own
    monotonic clock; only the first sight of a row has nothing but its wall time to go by. Safe on any thread.

    Args:
        clock: The source of time.
        host: This host's name.
    """

    def __init__(self, clock: Clock, host: str = "") -> None:
        self._clock = clock
        self._host = host
        self._seen: dict[Hashable, _Seen] = {}
        self._lock = threading.Lock()

    def age(self, key: Hashable, host: str, stamp: BootStamp, number: int) -> float:
        """Return the age in seconds of a report.

        Args:
            key: Whose reports these are.
            host: Where it runs.
            stamp: When it says it was made.
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
                seen = _Seen(number, now - max(0.0, self._clock.wall() - stamp.wall))
            elif seen.number != number:
                seen = _Seen(number, now)
            self._seen[key] = seen
        return now - seen.at
