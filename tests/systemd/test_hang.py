"""A daemon that hangs: the watchdog acts, says on what, and the daemon is back."""

import os
import signal

import pytest
from ostler_unit import IMPATIENT


def back(unit, after):
    unit.await_entry("Watchdog timeout", after=after)
    unit.await_entry("Scheduled restart job", after=after)
    unit.await_entry("Started ostler.service", after=after)
    assert unit.show("NRestarts") == "1"
    assert unit.ostler("status").returncode == 0


def test_a_daemon_that_is_well_is_left_alone_for_several_intervals(unit):
    unit.add("[Service]\nWatchdogSec=500ms\n")
    unit.start()
    pid = unit.pid
    # The wait is the test: nothing may happen during it.
    with pytest.raises(AssertionError, match="did not log"):
        unit.await_entry("Watchdog timeout", timeout=3)
    assert unit.pid == pid


def test_a_stopped_process_is_killed_and_restarted(unit):
    unit.add(IMPATIENT)
    unit.start()
    after = unit.machine.cursor()
    os.kill(unit.pid, signal.SIGSTOP)
    back(unit, after)


def test_a_blocked_loop_is_killed_with_its_stacks_and_restarted(unit):
    unit.trial()
    after = unit.machine.cursor()
    with unit.call_in_background("trial", "block_loop", "seconds=60") as call:
        back(unit, after)
        call.kill()
    assert "block_loop" in unit.messages(), "the stack of the loop's thread"


def test_a_store_that_hangs_is_named_before_systemd_acts(unit):
    unit.trial()
    after = unit.machine.cursor()
    with unit.call_in_background("trial", "block_store", "seconds=60") as call:
        unit.await_entry("withholding the watchdog ping: the store", after=after)
        back(unit, after)
        call.kill()


def test_work_that_takes_long_is_no_hang(unit):
    unit.trial()
    pid = unit.pid
    assert unit.ostler("call", "trial", "work", "seconds=3").returncode == 0
    assert unit.pid == pid
    assert "withholding" not in unit.messages()
