"""Remembers which chosen backends refused what they were chosen for, so that `explain` can say so."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ostler import format_seconds, format_size
from ostler_scheduler.wire import Request

KEEP = 600.0
"""Seconds for which a refusal is shown."""
_LIMIT = 1000
"""Refusals that are kept: one of each backend, the oldest go first."""


class _Refusal(NamedTuple):
    at: float
    size: int
    why: str


class Refusals:
    """The latest refusal of each backend. Safe on any thread; every time is of one monotonic clock."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Refusal] = {}
        self._lock = threading.Lock()

    def note(self, request: Request, now: float) -> None:
        """Take note of what refused a request."""
        with self._lock:
            for who, why in request.refused.items():
                key = request.topic, who
                self._kept.pop(key, None)
                self._kept[key] = _Refusal(now, request.size, why)
            while len(self._kept) > _LIMIT:
                del self._kept[next(iter(self._kept))]

    def of(self, topic: str, host: str, backend: str, now: float) -> str:
        """Return what a backend refused lately, in words; empty when it refused nothing."""
        with self._lock:
            kept = (self._kept.get((topic, name)) for name in (f"{host}/{backend}", host))
            found = [each for each in kept if each is not None]
        latest = max(found, default=None)
        if latest is None or now - latest.at > KEEP:
            return ""
        what = format_size(latest.size) if latest.size else "a request"
        return f"refused {what} {format_seconds(round(now - latest.at))} ago: {latest.why}"
