"""Drivers in processes of their own, in a real daemon: they harm neither it nor other drivers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from daemon_process import wait_for

DEVICES = """
[services.device]
manager = "isolated_device:DeviceManager"
[services.device.drivers.good]
driver = "isolated_device:IsolatedDevice"
[services.device.drivers.bad]
driver = "isolated_device:IsolatedDevice"
isolation = "process"
retry_interval = 0.05
"""


def driver(daemon, name: str = "bad") -> dict:
    (service,) = daemon.status()["services"]
    return next(row for row in service["drivers"] if row["name"] == name)


def do(daemon, what: str = "pid", number: int = 0, name: str = "bad") -> str:
    return str(daemon.json("call", "device", "do", f"driver={name}", f"what={what}", f"number={number}"))


def ready(daemon) -> None:
    wait_for(lambda: driver(daemon)["state"] == "ready", "the driver to be ready")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.failure_mode("Plugins", "a driver in its own process that crashes, hangs or floods the log")
@pytest.mark.parametrize(("what", "outcome"), [("segfault", "SIGSEGV"), ("exit", "exited with status 0")])
def test_a_crash_is_an_error_of_its_call_and_of_nobody_else(make_daemon, what: str, outcome: str) -> None:
    daemon = make_daemon(DEVICES).start()
    ready(daemon)
    pid = do(daemon)
    assert do(daemon, "count") == "1"
    failed = daemon.command("call", "device", "do", "driver=bad", f"what={what}", check=1)
    assert outcome in failed.stderr
    assert "crashed" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert do(daemon, name="good") == str(daemon.running.pid)
    ready(daemon)
    assert do(daemon) != pid
    assert do(daemon, "count") == "2"
    daemon.wait_log("started again")


@pytest.mark.failure_mode("Plugins", "a driver in its own process that crashes, hangs or floods the log")
def test_a_driver_that_holds_its_interpreter_delays_nobody_and_is_killed(make_daemon) -> None:
    daemon = make_daemon(DEVICES + 'call_timeout = "0.5s"\nkill_timeout = "0.2s"\n').start()
    ready(daemon)
    pid = int(do(daemon))
    stuck = daemon.command("call", "device", "do", "driver=bad", "what=hold", "number=600", check=1)
    assert "stuck" in stuck.stderr
    assert do(daemon, name="good")
    daemon.wait_log("nor within 200ms of being cancelled")
    ready(daemon)
    assert not is_running(pid)


@pytest.mark.failure_mode("Plugins", "a driver in its own process that crashes, hangs or floods the log")
def test_limits_and_output_of_the_process_are_bounded(make_daemon) -> None:
    daemon = make_daemon(DEVICES + 'memory_limit = "1GiB"\n').start()
    ready(daemon)
    failed = daemon.command("call", "device", "do", "driver=bad", "what=fill", "number=2000", check=1)
    assert "MemoryError" in failed.stderr
    do(daemon, "print", 200_000)
    daemon.wait_log("left out")
    assert daemon.log.count("chatter") < 5000
    assert do(daemon, name="good")


@pytest.mark.failure_mode("Plugins", "a driver in its own process that crashes, hangs or floods the log")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.failure_mode("Plugins", "what a plugin still runs when the daemon stops or dies")
def test_no_process_outlives_the_daemon(make_daemon, number: int) -> None:
    daemon = make_daemon(DEVICES).start()
    ready(daemon)
    pid = int(do(daemon))
    assert is_running(pid)
    daemon.signal(number)
    daemon.wait_end()
    wait_for(lambda: not is_running(pid), "the process of the driver to end")


@pytest.mark.failure_mode("Plugins", "a driver in its own process that crashes, hangs or floods the log")
@pytest.mark.failure_mode("Plugins", "what a plugin still runs when the daemon stops or dies")
def test_what_a_driver_has_started_ends_with_it_and_a_kill_is_shown(make_daemon) -> None:
    daemon = make_daemon(DEVICES.replace("retry_interval = 0.05", "retry_interval = 300")).start()
    ready(daemon)
    child, pid = int(do(daemon, "child")), int(do(daemon))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: driver(daemon)["state"] == "failed", "the driver to fail")
    assert "SIGKILL" in driver(daemon)["why"]
    wait_for(lambda: not is_running(child), "what it has started to end")
    refused = daemon.command("call", "device", "do", "driver=bad", check=1)
    assert "next attempt in" in refused.stderr


VOLUMES = """
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
isolation = "process"
path = "{path}"
reserve = "0B"
"""


def test_the_file_driver_of_volumes_works_in_a_process_of_its_own(make_daemon, tmp_path) -> None:
    daemon = make_daemon(VOLUMES.format(path=tmp_path / "volumes")).start()
    daemon.command("volume", "create", "a", "--size", "1MiB")
    daemon.command("volume", "extend", "a", "2MiB")
    daemon.command("volume", "snapshot", "create", "a", "s")
    daemon.command("volume", "create", "b", "--source", "a")
    daemon.command("volume", "delete", "b")
    shown = daemon.json("volume", "show", "a")
    assert shown["size"] == 2 * 2**20


def test_what_happens_to_a_process_later_belongs_to_no_request(make_daemon) -> None:
    daemon = make_daemon(DEVICES.replace('isolation = "process"', "")).start()
    daemon.configure(DEVICES)
    daemon.command("reload")
    ready(daemon)
    os.kill(int(do(daemon)), signal.SIGSEGV)
    said = daemon.wait_log("started again")
    about = [line for line in said.splitlines() if "SIGSEGV" in line or "Fatal Python error" in line]
    assert len(about) >= 3
    assert [line for line in about if "request_id" in line] == []
