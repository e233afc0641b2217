"""From `systemctl start` to READY, and the ways not to get there."""

import os
from pathlib import Path

import pytest
from ostler_unit import IMPATIENT, TRIAL_DROP_IN

SLOW = """\
import time
from ostler import Manager

class Slow(Manager):
    def init_host(self, service_id, added_to_cluster):
        time.sleep(4)
"""
# Kills itself as a SIGHUP would that comes before the handler is set, the first time it is started.
HUNG_UP_ONCE = """\
[Service]
RestartSec=100ms
ExecStart=
ExecStart=/bin/sh -c 'mkdir /var/lib/ostler/second && kill -HUP $$$$; exec /usr/bin/ostler run'
"""


@pytest.mark.failure_mode("Life", "READY only when work is possible")
def test_ready_only_when_work_is_possible(unit):
    unit.start()
    created = unit.ostler("volume", "create", "first", "--size", "1MiB")
    assert created.returncode == 0
    assert unit.show("ActiveState") == "active"
    assert "volume up" in unit.show("StatusText")
    assert "scheduler up" in unit.show("StatusText")


def test_it_runs_as_its_own_user_in_folders_of_its_own(unit):
    unit.start()
    uid = int(unit.machine.run("id", "-u", "ostler").stdout)
    assert uid != 0
    assert Path(f"/proc/{unit.pid}").stat().st_uid == uid
    modes = unit.machine.run("stat", "-c", "%n %a %U", "/var/lib/ostler", "/run/ostler", "/etc/ostler").stdout
    assert modes.splitlines() == ["/var/lib/ostler 700 ostler", "/run/ostler 755 ostler", "/etc/ostler 755 root"]


def test_it_runs_as_a_dynamic_user(unit):
    unit.add("dynamic-user.conf", "[Service]\nUser=ostler-dyn\nGroup=\n")
    unit.start()
    assert unit.ostler("volume", "create", "first", "--size", "1MiB").returncode == 0
    assert 61184 <= Path(f"/proc/{unit.pid}").stat().st_uid <= 65519
    assert unit.machine.run("test", "-f", "/var/lib/private/ostler/ostler.db").returncode == 0


def test_a_wrong_configuration_is_told_whole_and_not_tried_again(unit):
    unit.add(IMPATIENT)
    unit.configure('[daemon]\nhots = "a"\n[services.volume]\nmanager = 7\n')
    started = unit.machine.systemctl("start", "ostler", check=False)
    assert started.returncode != 0
    unit.await_entry("Failed with result 'exit-code'")
    assert unit.show("ExecMainStatus") == "78"
    assert unit.show("ActiveState") == "failed"
    assert unit.show("NRestarts") == "0"
    said = unit.messages()
    assert "/etc/ostler/ostler.toml:2:1: " in said
    assert "/etc/ostler/ostler.toml:4:" in said
    assert "Traceback" not in said


def test_a_daemon_that_is_killed_comes_back_with_its_state(unit):
    unit.add(IMPATIENT)
    unit.start()
    unit.ostler("volume", "create", "kept", "--size", "1MiB")
    after = unit.machine.cursor()
    os.kill(unit.pid, 9)
    unit.await_entry("Started ostler.service", after=after)
    assert "kept" in unit.ostler("volume", "list").stdout
    assert unit.show("NRestarts") == "1"


def test_a_slow_start_says_what_it_waits_for_and_gets_more_time(unit):
    unit.machine.write("/opt/trial/slow.py", SLOW)
    unit.configure('[services.slow]\nmanager = "slow:Slow"\n')
    unit.add(TRIAL_DROP_IN, "[Service]\nTimeoutStartSec=2\n")
    unit.start()
    assert unit.show("NRestarts") == "0"


@pytest.mark.failure_mode("Life", "SIGHUP before the handler is set")
def test_sighup_before_the_handler_is_set(unit):
    unit.add(HUNG_UP_ONCE)
    unit.machine.run("systemctl", "start", "--no-block", "ostler")
    unit.await_entry("Scheduled restart job")
    unit.await_entry("Started ostler.service")
    assert unit.show("NRestarts") == "1"


@pytest.mark.failure_mode("Life", "SIGHUP before the handler is set")
def test_sighup_during_the_start(unit):
    unit.machine.write("/opt/trial/slow.py", SLOW)
    unit.configure('[services.slow]\nmanager = "slow:Slow"\n')
    unit.add(TRIAL_DROP_IN)
    unit.machine.run("systemctl", "start", "--no-block", "ostler")
    unit.machine.run("systemctl", "kill", "-s", "HUP", "ostler")
    unit.await_entry("Started ostler.service")
    assert unit.show("NRestarts") in {"0", "1"}, "the first signal may come before Python has begun"
    assert unit.ostler("status").returncode == 0
