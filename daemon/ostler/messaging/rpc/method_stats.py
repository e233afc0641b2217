"""What is counted of a method: requests, how they ended, and how long they took."""

from __future__ import annotations

from math import log2

_BUCKETS_PER_OCTAVE = 4
"""Buckets for each doubling of the time: a percentile is right within a fifth."""


class MethodStats:
    """The counters of one method since its service was loaded. On the loop's thread only.

    Times go into buckets that grow by the factor 2^(1/4), from a microsecond to twelve days.
    """

    __slots__ = (
        "buckets",
        "errors",
        "has_large_results",
        "in_flight",
        "refused",
        "requests",
        "total_seconds",
        "typical_seconds",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.refused = 0
        self.in_flight = 0
        self.total_seconds = 0.0
        self.typical_seconds = 1.0
        self.has_large_results = False
        """Whether the last result of a `def` was large. Written by its thread."""
        self.buckets: dict[int, int] = {}

    def record_run(self, seconds: float) -> None:
        """Record how long a `def` ran in its thread; `typical_seconds` is about the least of late. On that thread."""
        self.typical_seconds = (
            seconds if seconds < self.typical_seconds else self.typical_seconds + (seconds - self.typical_seconds) / 16
        )

    def record_latency(self, seconds: float) -> None:
        """Count a request that has ended, and how long it took from its arrival."""
        micros = seconds * 1e6
        bucket = int(_BUCKETS_PER_OCTAVE * log2(micros)) if micros > 1 else 0
        buckets = self.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.total_seconds += seconds


def percentile(buckets: dict[int, int], fraction: float) -> float:
    """Return the seconds within which `fraction` (0 to 1) of the requests ended, 0 when there were none."""
    left = fraction * sum(buckets.values())
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 0:
            return 2 ** ((bucket + 1) / _BUCKETS_PER_OCTAVE) / 1e6
    return 0.0
