"""The scheduler in a host, with a stranger's plugin beside it: real plugin host, services and calls."""

from __future__ import annotations

import types

import pytest

from ostler import ConfigurationError, InvalidInput, Manager, NoCapacity, NotPermitted, ServiceState, hookimpl
from ostler.testing import host
from ostler_scheduler import Filter
from ostler_scheduler.api_types import Candidate, Explanation, Selection

GIB = 2**30
CONFIG = """
[services.scheduler]
manager = "scheduler"
filters = ["quiet", "capacity"]

[services.pool]
manager = "pool"
capability_interval = 0.05
depends_on = ["scheduler"]
"""


class PoolManager(Manager):
    """Has backends, as any manager may."""

    def capabilities(self):
        return {"big": {"free_bytes": 50 * GIB}, "loud": {"free_bytes": 90 * GIB, "decibel": 80}}


class QuietFilter(Filter):
    def why_not(self, candidate, request):
        return "too loud" if (candidate.number("decibel") or 0) > 40 else ""


def stranger():
    """Make a plugin that is no part of this distribution, with a manager and a filter."""
    plugin = types.ModuleType("stranger")

    @hookimpl
    def ostler_managers():
        return {"pool": PoolManager}

    @hookimpl
    def ostler_extensions():
        return {("scheduler.filter", "quiet"): QuietFilter}

    plugin.ostler_managers, plugin.ostler_extensions = ostler_managers, ostler_extensions
    return plugin


@pytest.fixture
def start():
    def open_host(config=CONFIG):
        return host(plugins=["ostler_scheduler.plugin", stranger()], config=config)

    return open_host


def known(h):
    return h.on(type=list[Candidate]).call("scheduler", "candidates", topic="pool")


def test_what_a_service_reports_can_be_selected_and_explained_over_the_wire(start):
    with start() as h:
        h.wait_for(lambda: len(known(h)) == 2, "the first report")
        chosen = h.on(type=Selection).call("scheduler", "select", topic="pool", size="10GiB")
        assert (chosen.host, chosen.backend) == ("testhost", "big")
        said = h.on(type=Explanation).call("scheduler", "explain", topic="pool", size="10GiB", features=[], exclude=[])
        assert [(one.backend, one.dropped_by, one.reason) for one in said.candidates] == [
            ("big", "", ""), ("loud", "quiet", "too loud"),
        ]  # fmt: skip


def test_what_cannot_be_done_is_refused_by_name(start):
    with start() as h:
        h.wait_for(lambda: len(known(h)) == 2, "the first report")
        with pytest.raises(NoCapacity, match="quiet dropped 1") as caught:
            h.call("scheduler", "select", topic="pool", size="60GiB")
        assert caught.value.details["dropped"] == {"capacity": 1, "quiet": 1}
        for size in ("ten", "-1", -1):
            with pytest.raises(InvalidInput):
                h.call("scheduler", "select", topic="pool", size=size)


def test_a_user_without_a_role_may_neither_look_nor_report(start):
    with start() as h, h.client(uid=4711) as nobody:
        with pytest.raises(NotPermitted):
            nobody.call("scheduler", "candidates")
        report = {"topic": "pool", "backends": {}, "reported_at": 0.0, "enabled": True, "host": "x"}
        with pytest.raises(NotPermitted):
            nobody.call("scheduler", "update_capabilities", report=report)


def test_an_unknown_filter_stops_the_start_and_names_the_known_ones(start):
    with pytest.raises(Exception, match='did you mean "quiet"') as caught, start(CONFIG.replace('"quiet"', '"quite"')):
        pytest.fail("it has started")
    assert ":4:12: services.scheduler.filters[0]" in str(caught.value)


def test_a_part_that_is_no_filter_is_refused_before_anything_starts():
    wrong = {("scheduler.filter", "quiet"): PoolManager}
    with (
        pytest.raises(ConfigurationError, match="quiet"),
        host(plugins=["ostler_scheduler.plugin"], extensions=wrong, config='[services.scheduler]\nmanager="scheduler"'),
    ):
        pytest.fail("it has started")


def test_a_reload_takes_over_filters_and_weighers(start):
    with start() as h:
        h.wait_for(lambda: len(known(h)) == 2, "the first report")
        h.reload(CONFIG.replace('"quiet", ', ""))
        assert h.on(type=Selection).call("scheduler", "select", topic="pool", size="10GiB").backend == "loud"
        assert h.states()["scheduler"] is ServiceState.UP
