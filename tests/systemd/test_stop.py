"""`systemctl stop`: whole, within its time, and never by force."""

import os
import signal
import time

import pytest


def test_an_idle_daemon_stops_at_once_and_cleanly(unit):
    unit.start()
    began = time.monotonic()
    unit.machine.systemctl("stop", "ostler")
    assert time.monotonic() - began < 3
    assert (unit.show("ActiveState"), unit.show("Result"), unit.show("ExecMainStatus")) == ("inactive", "success", "0")
    assert not unit.machine.path("/run/ostler").exists()


def test_work_in_flight_is_waited_for_and_answered(unit):
    unit.trial()
    with unit.call_in_background("trial", "work", "seconds=3") as call:
        unit.await_entry("work begins")
        unit.machine.systemctl("stop", "ostler")
        out, _ = call.communicate(timeout=10)
    assert call.returncode == 0
    assert "done" in out
    assert unit.show("Result") == "success"


def test_the_watchdog_does_not_disturb_a_stop_that_waits(unit):
    unit.trial()  # WatchdogSec=2
    with unit.call_in_background("trial", "work", "seconds=4"):
        unit.await_entry("work begins")
        unit.machine.systemctl("stop", "ostler")
    assert "Watchdog timeout" not in unit.messages()
    assert unit.show("Result") == "success"


@pytest.mark.failure_mode("Life", "SIGTERM with a driver hung in a native call")
def test_sigterm_with_work_that_hangs(unit):
    unit.trial()  # stop_timeout = "5s"
    with unit.call_in_background("trial", "work", "seconds=600") as call:
        unit.await_entry("work begins")
        began = time.monotonic()
        unit.machine.systemctl("stop", "ostler")
        taken = time.monotonic() - began
        call.kill()
    assert taken < 15
    said = unit.messages()
    assert "still running at the end of the stop" in said
    assert "work" in said
    assert "timed out. Killing" not in said, "systemd did not have to use force"


@pytest.mark.failure_mode("Life", "second SIGTERM")
def test_a_second_sigterm_is_fast(unit):
    unit.trial()
    pid = unit.pid
    with unit.call_in_background("trial", "work", "seconds=600") as call:
        unit.await_entry("work begins")
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        unit.await_entry("SIGTERM received: stopping")
        os.kill(pid, signal.SIGTERM)
        unit.await_entry("still running at the end of the stop")
        call.kill()
    assert time.monotonic() - began < 8


def test_a_restart_keeps_what_was_acknowledged(unit):
    unit.start()
    unit.ostler("volume", "create", "kept", "--size", "1MiB")
    unit.machine.systemctl("restart", "ostler")
    assert "kept" in unit.ostler("volume", "list").stdout
