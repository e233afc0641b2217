"""Drivers in processes of their own, under the shipped unit: its sandbox holds for them, and none is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from ostler_unit import IMPATIENT, TRIAL_DROP_IN, Unit

DEVICE = Path(__file__).parents[1] / "functional" / "isolated_device.py"
CONFIGURATION = """
[daemon]
stop_timeout = "5s"

[services.device]
manager = "isolated_device:DeviceManager"
[services.device.drivers.good]
driver = "isolated_device:IsolatedDevice"
[services.device.drivers.bad]
driver = "isolated_device:IsolatedDevice"
isolation = "process"
retry_interval = 0.05
memory_limit = "1GiB"
nice = 7
"""


class Device:
    """The service under test, and the process of its driver as the container numbers it."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def start(self, more: str = "", *drop_ins: str) -> None:
        self.unit.machine.write("/opt/trial/isolated_device.py", DEVICE.read_text())
        self.unit.configure(CONFIGURATION + more)
        self.unit.add(TRIAL_DROP_IN, *drop_ins)
        self.unit.start()
        self.until_ready()

    def do(self, what: str = "pid", *, driver: str = "bad", number: int = 0, check: bool = True):
        arguments = f"driver={driver}", f"what={what}", f"number={number}"
        return self.unit.ostler("call", "device", "do", *arguments, check=check)

    def number(self, what: str = "pid", driver: str = "bad") -> int:
        return int(self.do(what, driver=driver).stdout.strip().strip('"'))

    def until_ready(self) -> None:
        self.wait_for(self.is_ready, "the driver to be ready")

    def is_ready(self) -> bool:
        (service,) = self.unit.status()["services"]
        return all(row["state"] == "ready" for row in service["drivers"])

    def is_running(self, pid: int) -> bool:
        return self.unit.machine.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0

    def read(self, pid: int, name: str) -> str:
        return self.unit.machine.run("cat", f"/proc/{pid}/{name}").stdout

    def status(self, pid: int) -> dict[str, str]:
        return dict(row.split(":\t", 1) for row in self.read(pid, "status").splitlines() if ":\t" in row)

    def nice(self, pid: int) -> int:
        return int(self.read(pid, "stat").rpartition(")")[2].split()[16])

    @staticmethod
    def wait_for(condition, what: str) -> None:
        until = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < until, f"timed out waiting for {what}"
            time.sleep(0.05)


@pytest.fixture
def device(unit: Unit) -> Device:
    return Device(unit)


@pytest.mark.failure_mode("Plugins", "a driver in its own process under the sandbox of systemd")
def test_the_sandbox_of_the_unit_is_that_of_the_process_and_its_limits_apply(device: Device) -> None:
    device.start()
    pid, main = device.number(), device.number(driver="good")
    assert pid != main
    status, of_daemon = device.status(pid), device.status(main)
    for name in ("Uid", "NoNewPrivs", "Seccomp", "CapBnd", "CapEff"):
        assert status[name] == of_daemon[name], name
    assert status["NoNewPrivs"] == "1"
    assert device.read(pid, "cgroup") == device.read(main, "cgroup")
    assert device.nice(pid) == min(19, device.nice(main) + 7)
    assert "Max address space         1073741824" in device.read(pid, "limits")
    assert "`nice` has no effect" not in device.unit.messages()


@pytest.mark.failure_mode("Plugins", "a driver in its own process under the sandbox of systemd")
@pytest.mark.parametrize(("what", "outcome"), [("segfault", "SIGSEGV"), ("exit", "exited with status 0")])
def test_a_crash_is_seen_by_nobody_else_and_the_driver_is_back(device: Device, what: str, outcome: str) -> None:
    device.start()
    pid, main = device.number(), device.unit.pid
    failed = device.do(what, check=False)
    assert failed.returncode == 1
    assert outcome in failed.stderr
    device.until_ready()
    assert device.number() != pid
    assert device.unit.pid == main
    assert device.unit.show("NRestarts") == "0"


@pytest.mark.failure_mode("Plugins", "a driver in its own process under the sandbox of systemd")
def test_a_stop_leaves_no_process_behind(device: Device) -> None:
    device.start()
    pids = [device.number(), device.number("child")]
    assert all(map(device.is_running, pids))
    device.unit.machine.systemctl("stop", "ostler.service")
    assert [pid for pid in pids if device.is_running(pid)] == []
    assert device.unit.show("Result") == "success"


@pytest.mark.failure_mode("Plugins", "a driver in its own process under the sandbox of systemd")
def test_a_killed_daemon_leaves_no_process_behind_and_is_back(device: Device) -> None:
    device.start("", IMPATIENT)
    pids = [device.number(), device.number("child")]
    after = device.unit.machine.cursor()
    os.kill(device.unit.pid, signal.SIGKILL)
    device.unit.await_entry("Started ostler.service", after=after)
    assert [pid for pid in pids if device.is_running(pid)] == []
    device.until_ready()
    assert device.number() not in pids


@pytest.mark.failure_mode("Plugins", "a driver in its own process under the sandbox of systemd")
def test_a_stuck_process_is_no_matter_of_the_watchdog(device: Device) -> None:
    device.start('call_timeout = "4s"\nkill_timeout = "0.2s"\n', IMPATIENT)  # twice the watchdog's time
    pid, main = device.number(), device.unit.pid
    with device.unit.call_in_background("device", "do", "driver=bad", "what=hold", "number=600") as call:
        device.unit.await_entry("nor within 200ms of being cancelled")
        assert call.wait(20) == 1
    device.until_ready()
    assert not device.is_running(pid)
    assert device.unit.pid == main
    assert device.unit.show("NRestarts") == "0"
    assert "withholding" not in device.unit.messages()
