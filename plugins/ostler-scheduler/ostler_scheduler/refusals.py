"""Stores which chosen backends refused a request, for `explain`."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ostler import format_seconds, format_size
from ostler_scheduler.api_types import Request

RETENTION = 600.0
"""Seconds for which a refusal is shown."""
_MAX_REFUSALS = 1000
"""Maximum number of stored refusals: one of each backend, the oldest are dropped first."""


class _Refusal(NamedTuple):
    at: float
    size: int
    why: str


class Refusals:
    """The latest refusal of each backend. Thread-safe; all times are of one monotonic clock."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], _Refusal] = {}
        self._lock = threading.Lock()

    def record(self, request: Request, now: float) -> None:
        """Store the refusals of a request."""
        with self._lock:
            for who, why in request.refused.items():
                key = request.topic, who
                self._latest.pop(key, None)
                self._latest[key] = _Refusal(now, request.size, why)
            while len(self._latest) > _MAX_REFUSALS:
                del self._latest[next(iter(self._latest))]

    def describe_latest(self, topic: str, host: str, backend: str, now: float) -> str:
        """Return the recent refusal of a backend as a text; empty without one."""
        with self._lock:
            kept = (self._latest.get((topic, name)) for name in (f"{host}/{backend}", host))
            found = [each for each in kept if each is not None]
        latest = max(found, default=None)
        if latest is None or now - latest.at > RETENTION:
            return ""
        what = format_size(latest.size) if latest.size else "a request"
        return f"refused {what} {format_seconds(round(now - latest.at))} ago: {latest.why}"
