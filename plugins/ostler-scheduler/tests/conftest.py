from __future__ import annotations

import random

import pytest

from ostler_scheduler.filters import CapabilitiesFilter, CapacityFilter, EnabledFilter, HostFilter
from ostler_scheduler.wire import Candidate, Request

GIB = 2**30


@pytest.fixture
def rng():
    return random.Random(7)


@pytest.fixture
def candidate():
    """Make a candidate with so many GiB free; further facts by name."""

    def make(backend="fast", host="node1", free=100, *, topic="volume", gone="", enabled=True, promised=0, **facts):
        known = {"total_bytes": 200 * GIB, "free_bytes": free * GIB, "features": ["snapshot"], **facts}
        known = {name: value for name, value in known.items() if value is not None}
        return Candidate(
            topic=topic, host=host, backend=backend, facts=known, gone=gone, enabled=enabled, promised=promised
        )

    return make


@pytest.fixture
def request_for():
    """Make a request for so many GiB."""

    def make(size=10, **more):
        return Request(topic="volume", size=size * GIB, **more)

    return make


@pytest.fixture
def all_filters():
    return {
        "enabled": EnabledFilter(),
        "host": HostFilter(),
        "capabilities": CapabilitiesFilter(),
        "capacity": CapacityFilter(),
    }
