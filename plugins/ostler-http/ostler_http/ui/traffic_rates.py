"""`TrafficSampler`: rates, latencies and errors of methods, from counters that are read while somebody looks."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

_KEPT = 120
_MIN_AGE = 1.0
"""Seconds between two samples; who asks earlier gets the last one."""
_WINDOW = 10.0
"""Seconds over which rates are computed, where samples reach back so far."""
_STALE = 60.0
"""Seconds after which earlier samples say nothing of now: nobody has looked meanwhile."""


class Traffic(msgspec.Struct, kw_only=True):
    """What the page of topics shows.

    Attributes:
        seconds: The time that the rates are of; 0 until there are two samples.
        history: Requests per second between samples, oldest first.
        topics: Each topic with its rates and those of its methods.
        totals: The counters of the daemon as it sent them last.
    """

    seconds: float = 0.0
    rate: float | None = None
    events: float | None = None
    errors: float | None = None
    history: list[float] = []
    topics: list[dict[str, Any]] = []
    totals: dict[str, Any] = {}


class TrafficSampler:
    """Reads the counters when it is asked, and computes from what was read before. On one loop."""

    def __init__(self) -> None:
        self._samples: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._reading = asyncio.Lock()

    async def read(self, client: Any, now: float) -> Traffic:
        """Return the traffic of the last seconds.

        Args:
            client: That of a caller with a role.
            now: The monotonic time.
        """
        async with self._reading:
            last = self._samples[-1] if self._samples else None
            if last is None or now - last["read_at"] >= _MIN_AGE:
                if last is not None and now - last["read_at"] > _STALE:
                    self._samples.clear()
                counters = await client.call("ostler", "traffic", {}, timeout=10.0)
                self._samples.append({**counters, "read_at": now})
        return traffic_of(list(self._samples))


def traffic_of(samples: list[dict[str, Any]]) -> Traffic:
    """Return what samples say, oldest first."""
    now = samples[-1]
    earlier = [one for one in samples[:-1] if now["at"] > one["at"]]
    before = next((one for one in earlier if now["at"] - one["at"] <= _WINDOW), earlier[-1] if earlier else None)
    elapsed = now["at"] - before["at"] if before else 0.0
    topics = [
        _topic(topic, _named(before, "topics", "topic").get(topic["topic"], {}), elapsed) for topic in now["topics"]
    ]
    return Traffic(
        seconds=elapsed,
        rate=sum(topic["rate"] for topic in topics) if elapsed else None,
        errors=sum(topic["error_rate"] for topic in topics) if elapsed else None,
        events=max(0, now["published"] - before["published"]) / elapsed if before else None,
        history=_history(samples),
        topics=sorted(topics, key=lambda topic: topic["topic"]),
        totals=now,
    )


def _named(holder: Mapping[str, Any] | None, items: str, key: str) -> dict[str, dict[str, Any]]:
    return {item[key]: item for item in (holder or {}).get(items, [])}


def _topic(now: dict[str, Any], before: Mapping[str, Any], elapsed: float) -> dict[str, Any]:
    known = _named(before, "methods", "method")
    methods = [_method(method, known.get(method["method"], {}), elapsed) for method in now["methods"]]
    return {
        **now,
        "methods": sorted(methods, key=lambda method: (-(method["rate"] or 0), -method["requests"], method["method"])),
        "rate": sum(method["rate"] or 0.0 for method in methods) if elapsed else None,
        "error_rate": sum(method["error_rate"] or 0.0 for method in methods) if elapsed else None,
    }


def _method(now: dict[str, Any], before: Mapping[str, Any], elapsed: float) -> dict[str, Any]:
    if now["requests"] < before.get("requests", 0):
        before = {}  # the service was restarted meanwhile
    earlier = before.get("buckets", {})
    ended = {int(bucket): count - earlier.get(bucket, 0) for bucket, count in now["buckets"].items()}
    recent = ended if any(ended.values()) else {int(bucket): count for bucket, count in now["buckets"].items()}
    return {
        **now,
        "rate": max(0, now["requests"] - before.get("requests", 0)) / elapsed if elapsed else None,
        "error_rate": max(0, now["errors"] - before.get("errors", 0)) / elapsed if elapsed else None,
        "p50": percentile(recent, 0.5),
        "p99": percentile(recent, 0.99),
    }


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the time within which a share of requests has ended, in seconds; None if none has.

    Args:
        buckets: Numbers of requests: bucket `b` is up to 2^((b+1)/4) microseconds.
        share: 0.5 for the median.
    """
    total = sum(buckets.values())
    left = total * share
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0 < total:
            return float(2 ** ((bucket + 1) / 4)) * 1e-6
    return None


def _history(samples: list[dict[str, Any]]) -> list[float]:
    found = []
    for before, now in itertools.pairwise(samples):
        if (elapsed := now["at"] - before["at"]) > 0:
            requests = sum(topic["requests"] for topic in now["topics"])
            earlier = sum(topic["requests"] for topic in before["topics"])
            found.append(max(0, requests - earlier) / elapsed)
    return found
