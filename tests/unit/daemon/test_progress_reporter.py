"""What systemd and the log are told while the daemon starts, runs and stops."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from ostler.clock import FakeClock
from ostler.daemon.progress_reporter import ProgressReporter
from ostler.daemon.startup.step_tracker import StepTracker
from ostler.service.state_tracker import StateTracker
from ostler.systemd import FakeNotifier
from ostler.time_text import format_duration
from ostler.types import ServiceState

pytestmark = pytest.mark.virtual_time


class Group(list):
    """Services, and what their start waits for."""

    def start_waits_for(self) -> list[str]:
        return [f"{service.topic}: {service.step}" for service in self]


class Bench:
    """A reporter, and what it reports on and to."""

    def __init__(self) -> None:
        self.notifier, self.steps, self.clock = FakeNotifier(), StepTracker("starting"), FakeClock()
        self.state = StateTracker(self.clock, lambda: None)
        self.group, self.is_up = None, False
        self.reporter = ProgressReporter(self.notifier, self.steps, self.state, lambda: self.group, lambda: self.is_up)

    def service(self, state=ServiceState.UP, why="", step="", working=()) -> SimpleNamespace:
        tracker = StateTracker(self.clock, lambda: None)
        tracker.enter(state, why)
        return SimpleNamespace(topic="lamp", state_tracker=tracker, step=step, in_progress=lambda: list(working))


async def test_a_start_says_what_it_waits_for_until_it_has_ended():
    b = Bench()
    running = asyncio.ensure_future(b.reporter.report_start())
    await asyncio.sleep(0.5)
    b.steps("opening the database")
    await asyncio.sleep(1)
    b.steps("")
    b.group = Group([b.service(ServiceState.STARTING, step="init_host")])
    await asyncio.sleep(1)
    b.state.enter(ServiceState.UP)
    await running
    assert b.notifier.statuses == [
        "starting",
        "starting, waiting for opening the database",
        "starting, waiting for lamp: init_host",
    ]
    assert b.notifier.count("EXTEND_TIMEOUT_USEC") == 3


async def test_a_stop_says_what_it_waits_for_and_logs_each_kind_once(caplog):
    caplog.set_level(logging.INFO)
    b = Bench()
    seconds = iter(range(100))
    service = b.service(step="stopping drivers")
    service.in_progress = lambda: [f"lamp.work on lamp-1 for {format_duration(next(seconds) * 61)}"]
    b.group = Group([service])
    running = asyncio.ensure_future(b.reporter.report_stop())
    await asyncio.sleep(3.5)
    running.cancel()
    assert b.notifier.statuses[1] == "stopping, waiting for lamp.work on lamp-1 for 1min 1s; lamp: stopping drivers"
    assert [record.getMessage() for record in caplog.records] == [
        "stopping, waiting for lamp.work on lamp-1; lamp: stopping drivers"
    ]


def test_the_status_follows_the_services_only_while_the_daemon_is_up(caplog):
    b = Bench()
    b.state.enter(ServiceState.UP)
    b.group = Group([failed := b.service(ServiceState.FAILED, "no disk")])
    b.reporter.on_service_change(failed)
    assert b.notifier.statuses == []
    b.is_up = True
    b.reporter.on_service_change(failed)
    assert b.notifier.statuses == ["lamp failed"]
    assert (b.state.state, b.state.why) == (ServiceState.DEGRADED, "service lamp is failed: no disk")
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    b.reporter.on_service_change(b.service())
    assert b.state.state is ServiceState.UP


def test_lost_evidence_is_told_with_the_stacks_and_the_status_comes_back(caplog):
    b = Bench()
    b.reporter.on_liveness_lost("the store: no answer")
    b.reporter.on_liveness_recovered()
    assert b.notifier.statuses == [
        "unhealthy, withholding the watchdog ping: the store: no answer",
        "no services are configured",
    ]
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "MainThread" in record.ostler_detail
