"""The health of a daemon, from the states of its services and the watchdog's verdict."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ostler.daemon.control.health_report import HealthReport, health_report
from ostler.service.lifecycle import RUNNING_STATES
from ostler.service.state_tracker import StateTracker
from ostler.testing import FakeClock
from ostler.types import OperatorOverride, ServiceState


def tracker(state: ServiceState, why: str = "") -> StateTracker:
    found = StateTracker(FakeClock(), lambda: None)
    found.enter(state, why)
    return found


def service(topic: str, state: ServiceState, *, required=False, why="", frozen=None):
    return SimpleNamespace(
        topic=topic, state_tracker=tracker(state, why), is_running=state in RUNNING_STATES, frozen=frozen,
        options=SimpleNamespace(required=required),
    )  # fmt: skip


def report(*services, state=ServiceState.UP, stale=(), started=True, why="") -> HealthReport:
    return health_report(
        "node1", tracker(state, why), services, stale=stale, is_started=started, waiting_for=lambda: ["lamp: init_host"]
    )


def test_a_daemon_whose_services_work_is_live_started_and_ready():
    found = report(service("lamp", ServiceState.UP, required=True))
    assert (found.live, found.started, found.ready, found.why, found.waiting_for) == (True, True, True, [], [])
    assert found.services[0].ready


def test_one_that_starts_is_live_and_says_what_it_waits_for():
    found = report(service("lamp", ServiceState.STARTING, required=True), state=ServiceState.STARTING, started=False)
    assert (found.live, found.started, found.ready) == (True, False, False)
    assert (found.waiting_for, found.why) == (["lamp: init_host"], ["the daemon is starting"])


def test_one_that_stops_is_live_and_started_and_not_ready():
    found = report(service("lamp", ServiceState.DRAINING), state=ServiceState.DRAINING, why="the daemon is stopping")
    assert (found.live, found.started, found.ready) == (True, True, False)
    assert found.why == ["the daemon is draining: the daemon is stopping"]
    assert not found.services[0].ready


def test_what_the_watchdog_waits_for_makes_it_neither_live_nor_ready():
    found = report(stale=["the store (silent for 40.0 s, the limit is 30 s)"])
    assert (found.live, found.ready, found.started) == (False, False, True)
    assert found.why == ["no sign of life: the store (silent for 40.0 s, the limit is 30 s)"]


@pytest.mark.parametrize("state", [ServiceState.FAILED, ServiceState.STOPPED, ServiceState.DRAINING])
def test_only_required_services_decide_whether_it_is_ready(state):
    assert report(service("lamp", state), state=ServiceState.DEGRADED).ready
    found = report(service("lamp", state, required=True, why="no light"), state=ServiceState.DEGRADED)
    assert not found.ready
    assert found.why == [f"service lamp is {state}: no light"]


def test_a_degraded_service_works_and_tells_its_evidence():
    lamp = service("lamp", ServiceState.UP, required=True)
    lamp.state_tracker.set_problem("is_working", "no light")
    found = report(lamp)
    assert found.ready
    assert found.services[0].evidence == {"is_working": "no light"}
    assert found.services[0].state is ServiceState.DEGRADED


def test_a_frozen_service_takes_no_new_work_and_says_by_whom():
    frozen = OperatorOverride(by="root", reason="a new disk")
    found = report(service("lamp", ServiceState.UP, required=True, frozen=frozen))
    assert not found.ready
    assert found.why == ["service lamp is up: frozen by root: a new disk"]
