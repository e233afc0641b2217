"""What is counted of a method: requests, how they ended, and how long they took."""

from __future__ import annotations

from math import log2

_STEPS = 4
"""Buckets for each doubling of the time: a percentile is right within a fifth."""


class MethodStats:
    """The counters of one method since its service was loaded. On the loop's thread only.

    Times go into buckets that grow by the factor 2^(1/4), from a microsecond to twelve days.
    """

    __slots__ = ("buckets", "errors", "in_flight", "large_results", "refused", "requests", "seconds", "usual")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.refused = 0
        self.in_flight = 0
        self.seconds = 0.0
        self.usual = 1.0
        self.large_results = False
        """Whether the last result of a `def` was large. Written by its thread."""
        self.buckets: dict[int, int] = {}

    def ran(self, seconds: float) -> None:
        """Take note of how long a `def` ran in its thread; `usual` is about the least of late. On that thread."""
        self.usual = seconds if seconds < self.usual else self.usual + (seconds - self.usual) / 16

    def took(self, seconds: float) -> None:
        """Count a request that has ended, and how long it took from its arrival."""
        micros = seconds * 1e6
        bucket = int(_STEPS * log2(micros)) if micros > 1 else 0
        buckets = self.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.seconds += seconds


def percentile(buckets: dict[int, int], part: float) -> float:
    """Return the seconds within which `part` (0 to 1) of the requests ended, 0 when there were none."""
    left = part * sum(buckets.values())
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 0:
            return 2 ** ((bucket + 1) / _STEPS) / 1e6
    return 0.0
