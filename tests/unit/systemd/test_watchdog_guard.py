"""A watchdog ping is earned by evidence."""

import os

import pytest

from ostler.clock import FakeClock
from ostler.systemd import LivenessSignal, WatchdogGuard, watchdog_interval
from ostler.systemd.watchdog_guard import ping_interval, signal_max_age


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
    assert 2 * ping_interval(10) <= signal_max_age(10)
    assert ping_interval(10) + signal_max_age(10) < 10


def test_fresh_evidence_deserves_a_ping():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    evidence = guard.register_signal("loop", clock)
    clock.advance(4)
    evidence.touch()
    clock.advance(4)
    assert guard.poll().is_alive


def test_who_is_silent_is_named_with_how_long_and_how_long_is_allowed():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    guard.register_signal("store", clock, max_age=3)
    guard.register_signal("loop", clock)
    clock.advance(4)
    finding = guard.poll()
    assert not finding.is_alive
    assert [(entry.name, entry.age, entry.max_age) for entry in finding.stale] == [("store", 4, 3)]
    assert str(finding) == "no response from store (silent for 4s, the limit is 3s)"


def test_silence_is_news_once_and_its_end_once():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    evidence = guard.register_signal("rpc", clock)
    clock.advance(6)
    assert [entry.name for entry in guard.poll().newly_stale] == ["rpc"]
    clock.advance(1)
    assert guard.poll().newly_stale == []
    evidence.touch()
    finding = guard.poll()
    assert (finding.is_alive, finding.recovered) == (True, ["rpc"])
    assert guard.poll().recovered == []


def test_a_source_that_is_new_has_its_limit_from_when_it_was_made():
    clock = FakeClock()
    clock.advance(1000)
    assert LivenessSignal(clock).age() == 0


def test_a_source_that_raises_shows_no_life_and_the_others_are_still_asked():
    def broken() -> float:
        raise RuntimeError("gone")

    guard = WatchdogGuard(10)
    guard.register("broken", broken)
    guard.register("old", lambda: 99.0)
    guard.register("well", lambda: 0.0)
    assert [entry.name for entry in guard.poll().stale] == ["broken", "old"]


def test_what_is_forgotten_is_neither_missed_nor_said_to_be_back():
    guard = WatchdogGuard(10)
    guard.register("service volume", lambda: 99.0)
    guard.poll()
    guard.unregister("service volume")
    guard.unregister("never known")
    finding = guard.poll()
    assert (finding.is_alive, finding.recovered, guard.names) == (True, [], [])


def test_setting_the_wall_clock_is_no_silence():
    clock = FakeClock()
    guard = WatchdogGuard(10)
    guard.register_signal("loop", clock)
    clock.set_wall(clock.wall() + 3600)
    assert guard.poll().is_alive
