"""A disk that gets full and has room again: below the state, below everything, and before a start."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from daemon_process import wait_for
from machine_daemon import Machine

from ostler import Client, OperationState, StoreUnavailable

pytest_plugins = ["machine_fixtures"]
pytestmark = pytest.mark.root
FULL = r"database .* cannot grow: no space left on the device; free space on its file system"
VOLUMES = """
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"
reserve = "0"
"""


@pytest.mark.failure_mode("State", "disk full and then not")
def test_the_disk_of_the_state_is_full_and_then_not(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.disk(daemon.root / "state", 8)
    daemon.start()
    daemon.keep("before")
    disk.fill()
    refusal = daemon.keep_until_refused()
    assert isinstance(refusal, StoreUnavailable)
    assert "free space on its file system" in refusal.hint
    daemon.wait_problem(FULL)
    assert daemon.records()["state"] == "up"
    assert daemon.call("records", "echo", text="still") == "still"
    with Client(root=str(daemon.root)) as client, pytest.raises(StoreUnavailable):
        client.submit("records", "work", name="refused")
    disk.free()
    daemon.wait_well()
    daemon.keep("after")
    daemon.assert_nothing_lost()
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    daemon.assert_nothing_lost()
    assert daemon.count_acts() == {}
    assert daemon.stop() == 0


@pytest.mark.failure_mode("State", "disk full and then not")
def test_an_operation_in_whose_midst_the_disk_gets_full_goes_on_when_it_is_not(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.disk(daemon.root / "state", 8)
    daemon.start()
    with Client(root=str(daemon.root)) as client:
        operation = client.submit("records", "work", name="door", steps=8, seconds=0.1)
        wait_for(lambda: len(daemon.count_acts()) >= 2, "two steps")
        disk.fill()
        daemon.keep_until_refused()
        done = len(daemon.count_acts())
        assert operation.refresh().state is OperationState.RUNNING
        disk.free()
        assert operation.result(timeout=30) == "DOOR"
    assert done < 8
    assert daemon.count_acts() == {f"door {number}": 1 for number in range(8)}
    daemon.wait_well()


@pytest.mark.failure_mode("State", "disk full and then not")
@pytest.mark.failure_mode("Machine", "no space on the log")
def test_state_volumes_and_log_on_one_disk_that_is_full_and_then_not(machine: Machine) -> None:
    disk = machine.disk(machine.folder / "all", 96)
    root = machine.folder / "all" / "root"
    root.mkdir()
    daemon = machine.daemon(VOLUMES, root).start()
    daemon.command("volume", "create", "one", "--size", "1MiB")
    daemon.keep("before")
    disk.fill()
    for _ in range(20):  # the space reserved for the database is used up in the end
        daemon.keep_until_refused(200_000)
        if not any((root / "state").glob("*.spare")):
            break
    found = daemon.wait_problem("uses its reserved disk space, 0 KiB are left")
    assert "it is reserved again when 64 MiB are free" in found
    failed = daemon.command("volume", "create", "two", "--size", "4MiB", check=1)
    assert "no space left on the device" in failed.stderr
    assert "free space on its file system" in failed.stderr
    assert daemon.call("records", "echo", text="still") == "still"
    disk.free()
    daemon.keep("after")
    daemon.command("volume", "delete", "one")
    daemon.assert_nothing_lost()
    assert [each["name"] for each in daemon.json("volume", "list")] == []
    assert daemon.stop() == 0
    daemon.wait_log("stopped")


@pytest.mark.failure_mode("State", "a full disk that something has to be deleted on")
def test_the_disk_of_the_volumes_alone_is_full_and_then_not(machine: Machine) -> None:
    daemon = machine.daemon(VOLUMES)
    disk = machine.disk(daemon.root / "volumes", 32)
    daemon.start()
    daemon.command("volume", "create", "one", "--size", "1MiB")
    disk.fill()
    failed = daemon.command("volume", "create", "two", "--size", "4MiB", check=1)
    assert "no backend for 4MiB" in failed.stderr
    daemon.keep("database")
    daemon.command("volume", "delete", "one")
    disk.free()
    wait_for(
        lambda: daemon.command("volume", "create", "three", "--size", "4MiB", check=None).returncode == 0,
        "room that is seen", 20, lambda: daemon.log,
    )  # fmt: skip
    assert daemon.stop() == 0


@pytest.mark.failure_mode("State", "disk full and then not")
def test_a_start_on_a_full_disk_says_so_and_goes_on_by_itself(machine: Machine) -> None:
    daemon = machine.daemon()
    disk = machine.disk(daemon.root / "state", 8)
    daemon.start()
    daemon.keep("before")
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    disk.fill()
    Path(daemon.root / "state" / "ostler.db-shm").unlink()
    daemon.start()
    daemon.wait_problem("the database cannot be written: .*no space left on the device; free 256 KiB")
    disk.free()
    daemon.wait_well()
    daemon.keep("after")
    daemon.assert_nothing_lost()
