from __future__ import annotations

import logging
import random
from importlib import import_module

import pytest
from msgspec.structs import replace

from ostler import ManagerEnvironment, ServiceState, ServiceStatus
from ostler.testing import FakeClock
from ostler_scheduler import plugin as plugin_of_ours
from ostler_scheduler.api_types import Candidate, Request
from ostler_scheduler.filters import CapabilitiesFilter, CapacityFilter, EnabledFilter, HostFilter
from ostler_scheduler.manager import SchedulerManager

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


class FakeClient:
    """Stands for the daemon: answers `capabilities` with what a test puts in, and `service_list` with services."""

    def __init__(self):
        self.reports = []
        self.flushed = None
        self.flushes = 0
        self.error = None
        self.rows = [
            ServiceStatus(topic=topic, host=host, state=ServiceState.UP)
            for topic in ("volume", "share", "scheduler")
            for host in ("node1", "node2", "node3", "node4")
        ]

    def see(self, topic, host, **facts):
        """Have the daemon see a service differently."""
        self.rows = [replace(row, **facts) if (row.topic, row.host) == (topic, host) else row for row in self.rows]

    def on(self, **options):
        assert list(options) == ["type", "timeout"]
        return self

    def call(self, topic, method, /, **arguments):
        assert topic == "ostler"
        if self.error is not None:
            raise self.error
        if method == "service_list":
            assert not arguments
            return list(self.rows)
        assert (method, list(arguments)) == ("capabilities", ["flush"])
        if arguments["flush"]:
            self.flushes += 1
        return list(self.flushed if arguments["flush"] and self.flushed else self.reports)


def resolved(part):
    if not isinstance(part, str):
        return part
    module, _, attribute = part.partition(":")
    return getattr(import_module(module), attribute)


def extensions_of(*plugins):
    """Return what plugins bring by `ostler_extensions`, resolved, as a manager is handed it."""
    found = {}
    for plugin in plugins:
        for (kind, name), part in plugin.ostler_extensions().items():
            found.setdefault(kind, {})[name] = resolved(part)
    return found


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def make_manager(clock, client):
    """Make a scheduler with these options, and with what these plugins bring beside its own."""

    def make(*plugins, **options):
        environment = ManagerEnvironment(
            topic="scheduler",
            host="node1",
            options=SchedulerManager.Options(manager="scheduler", **{"seed": 7, **options}),
            drivers={},
            store=None,
            client=client,
            clock=clock,
            log=logging.LoggerAdapter(logging.getLogger("ostler.service.scheduler")),
            extensions=extensions_of(plugin_of_ours, *plugins),
        )
        return SchedulerManager(environment)

    return make
