"""`systemctl reload`, `ostler reload` and SIGHUP: one thing, with a verdict."""

import os
import signal

import pytest
from installation import CONFIGURATION

BETTER = CONFIGURATION + '\n[log]\nlevel = "debug"\n'
BROKEN = CONFIGURATION + "\n[log\n"
WRONG = CONFIGURATION + '\n[log]\nlevel = "loud"\n'


def level(unit):
    """What the running daemon goes by; `ostler config cat` would read the files."""
    lines = unit.ostler("call", "ostler", "config").stdout.splitlines()
    return next(line.split()[1] for line in lines if line.startswith("log.level "))


def test_a_good_reload_is_applied_by_the_same_process(unit):
    unit.start()
    pid = unit.pid
    unit.configure(BETTER)
    unit.machine.systemctl("reload", "ostler")
    assert unit.pid == pid
    assert unit.show("ActiveState") == "active"
    assert "log.level" in unit.show("StatusText")
    assert level(unit) == "debug"


@pytest.mark.failure_mode("Life", "SIGHUP with a file that does not parse")
@pytest.mark.failure_mode("Life", "SIGHUP with a bad typed value")
@pytest.mark.parametrize("text", [BROKEN, WRONG], ids=["does not parse", "bad value"])
def test_a_bad_reload_fails_and_changes_nothing(unit, text):
    unit.start()
    pid = unit.pid
    unit.configure(text)
    reloaded = unit.machine.systemctl("reload", "ostler", check=False)
    assert reloaded.returncode != 0
    assert (unit.pid, unit.show("ActiveState"), unit.show("SubState")) == (pid, "active", "running")
    assert "refused" in unit.show("StatusText")
    assert level(unit) == "info"
    assert "/etc/ostler/ostler.toml:" in unit.messages()
    assert "Traceback" not in unit.messages()


def test_a_refused_reload_can_be_followed_by_a_good_one(unit):
    unit.start()
    unit.configure(BROKEN)
    unit.machine.systemctl("reload", "ostler", check=False)
    unit.configure(BETTER)
    unit.machine.systemctl("reload", "ostler")
    assert level(unit) == "debug"


def test_sighup_is_the_same_reload(unit):
    unit.start()
    pid = unit.pid
    unit.configure(BETTER)
    os.kill(pid, signal.SIGHUP)
    unit.await_entry("reloaded")
    assert unit.pid == pid
    assert level(unit) == "debug"


@pytest.mark.failure_mode("Life", "SIGHUP with a file that does not parse")
def test_sighup_with_a_file_that_does_not_parse(unit):
    unit.start()
    pid = unit.pid
    unit.configure(BROKEN)
    os.kill(pid, signal.SIGHUP)
    unit.await_entry("reload refused")
    assert unit.pid == pid
    assert unit.ostler("status").returncode == 0


@pytest.mark.failure_mode("Life", "50 SIGHUPs in a second")
def test_fifty_sighups_in_a_second(unit):
    unit.start()
    pid = unit.pid
    unit.configure(BETTER)
    for _ in range(50):
        os.kill(pid, signal.SIGHUP)
    unit.await_entry("reloaded")
    assert unit.pid == pid
    assert unit.ostler("volume", "create", "after", "--size", "1MiB").returncode == 0


@pytest.mark.failure_mode("Life", "SIGHUP then SIGTERM")
def test_sighup_then_sigterm(unit):
    unit.start()
    pid = unit.pid
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGTERM)
    unit.await_entry("Deactivated successfully")
    assert unit.show("ActiveState") == "inactive"
