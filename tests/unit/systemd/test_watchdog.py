"""A watchdog ping is earned by evidence."""

import os

import pytest

from ostler.clock import FakeClock
from ostler.systemd import Evidence, WatchdogGuard, watchdog_interval
from ostler.systemd.watchdog import evidence_limit, ping_spacing


def test_the_interval_comes_from_systemd():
    assert watchdog_interval({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}) == 2.5


def test_an_interval_without_a_pid_is_meant_for_whoever_asks():
    assert watchdog_interval({"WATCHDOG_USEC": "1000000"}, pid=7) == 1.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_is_meant_for_this_process(environ):
    assert watchdog_interval(environ, pid=7) is None


def test_two_looks_fit_into_the_age_of_evidence_and_twice_that_into_the_interval():
    assert 2 * ping_spacing(10) <= evidence_limit(10)
    assert ping_spacing(10) + evidence_limit(10) < 10


def test_fresh_evidence_deserves_a_ping():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    evidence = guard.evidence("loop", clock)
    clock.advance(4)
    evidence.seen()
    clock.advance(4)
    assert guard.look().alive


def test_who_is_silent_is_named_with_how_long_and_how_long_is_allowed():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    guard.evidence("store", clock, limit=3)
    guard.evidence("loop", clock)
    clock.advance(4)
    finding = guard.look()
    assert not finding.alive
    assert [(entry.name, entry.age, entry.limit) for entry in finding.missing] == [("store", 4, 3)]
    assert str(finding) == "no sign of life from store (silent for 4.0 s, allowed are 3 s)"


def test_silence_is_news_once_and_its_end_once():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    evidence = guard.evidence("rpc", clock)
    clock.advance(6)
    assert [entry.name for entry in guard.look().lost] == ["rpc"]
    clock.advance(1)
    assert guard.look().lost == []
    evidence.seen()
    finding = guard.look()
    assert (finding.alive, finding.back) == (True, ["rpc"])
    assert guard.look().back == []


def test_a_source_that_is_new_has_its_limit_from_when_it_was_made():
    clock = FakeClock()
    clock.advance(1000)
    assert Evidence(clock).age() == 0


def test_a_source_that_raises_shows_no_life_and_the_others_are_still_asked():
    def broken() -> float:
        raise RuntimeError("gone")

    guard = WatchdogGuard(10)
    guard.watch("broken", broken)
    guard.watch("old", lambda: 99.0)
    guard.watch("well", lambda: 0.0)
    assert [entry.name for entry in guard.look().missing] == ["broken", "old"]


def test_what_is_forgotten_is_neither_missed_nor_said_to_be_back():
    guard = WatchdogGuard(10)
    guard.watch("service volume", lambda: 99.0)
    guard.look()
    guard.forget("service volume")
    guard.forget("never known")
    finding = guard.look()
    assert (finding.alive, finding.back, guard.names) == (True, [], [])


def test_setting_the_wall_clock_is_no_silence():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    guard.evidence("loop", clock)
    clock.set_wall(clock.wall() + 3600)
    assert guard.look().alive
