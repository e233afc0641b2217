"""File systems that are read-only for a while, and disks that report errors."""

from __future__ import annotations

import signal

import pytest
from machine_daemon import FaultyDaemon, Machine
from machine_shim import Shim

from ostler import StoreUnavailable

pytest_plugins = ["machine_fixtures"]
READ_ONLY = "whether (the|its) file system is mounted read-only"
BROKEN = "the disk reports an error; check the kernel log, the health of the disk"


def assert_lives(daemon: FaultyDaemon) -> None:
    assert daemon.records()["state"] == "up"
    assert daemon.call("records", "echo", text="still") == "still"


def assert_recovers(daemon: FaultyDaemon) -> None:
    daemon.wait_well()
    daemon.keep("after")
    daemon.assert_nothing_lost()
    assert daemon.command("db", "check").stdout.strip() == "The database is intact."


@pytest.mark.root
@pytest.mark.failure_mode("State", "database read-only")
def test_a_start_on_a_read_only_file_system_and_back(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.disk(daemon.root / "state", 8)
    daemon.start()
    daemon.keep("before")
    daemon.stop()
    disk.remount("ro")
    daemon.start()
    daemon.wait_problem(READ_ONLY)
    assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
    assert_lives(daemon)
    disk.remount("rw")
    assert_recovers(daemon)


@pytest.mark.root
@pytest.mark.failure_mode("State", "database read-only")
def test_a_file_system_that_the_kernel_makes_read_only_after_an_error(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.disk(daemon.root / "state", 8)
    daemon.start()
    daemon.keep("before")
    disk.report_error()
    assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
    daemon.keep_until_refused()
    daemon.wait_problem(READ_ONLY)
    assert_lives(daemon)
    assert daemon.stop() == 0
    disk.mount_again()
    daemon.start()
    assert_recovers(daemon)


@pytest.mark.failure_mode("State", "database read-only")
@pytest.mark.failure_mode("State", "a disk that reports errors")
@pytest.mark.parametrize(
    ("error", "problem"),
    [("EROFS", READ_ONLY), ("EIO", BROKEN), ("EDQUOT", "quotas of the daemon's user"), ("ENOSPC", "free space")],
)
def test_writes_that_fail_while_the_daemon_runs(machine: Machine, shim: Shim, error: str, problem: str) -> None:
    daemon = machine.daemon()
    daemon.environ.update(shim.environ())
    daemon.start()
    daemon.keep("before")
    shim.set(writes=error)
    for _ in range(2):
        assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
    daemon.wait_problem(problem)
    assert_lives(daemon)
    shim.set()
    assert_recovers(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "a disk that reports errors")
def test_reads_that_fail_at_the_start(machine: Machine, shim: Shim) -> None:
    daemon = machine.daemon()
    daemon.environ.update(shim.environ())
    daemon.start()
    daemon.keep("before")
    daemon.stop()
    shim.set(reads="EIO")
    daemon.start()
    daemon.wait_problem(BROKEN)
    assert_lives(daemon)
    shim.set()
    assert_recovers(daemon)


@pytest.mark.root
@pytest.mark.failure_mode("State", "a disk that reports errors")
def test_a_device_that_fails_while_the_daemon_runs_and_works_again(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.broken_disk(daemon.root / "state", 16)
    daemon.start()
    daemon.keep("before")
    disk.break_writes()
    assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
    daemon.wait_problem(BROKEN)
    assert_lives(daemon)
    disk.mend()
    assert_recovers(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    daemon.assert_nothing_lost()


@pytest.mark.root
@pytest.mark.failure_mode("State", "a disk that reports errors")
def test_a_start_on_a_device_that_fails_goes_on_when_it_works_again(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.broken_disk(daemon.root / "state", 16)
    daemon.start()
    daemon.keep("before")
    daemon.stop()
    disk.break_writes()
    daemon.start()
    daemon.keep_until_refused()
    daemon.wait_problem(BROKEN)
    assert_lives(daemon)
    disk.mend()
    assert_recovers(daemon)
