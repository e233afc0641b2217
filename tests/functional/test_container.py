"""The daemon as process 1 of a container: what the kernel does not do there by itself."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, wait_for

CONFIG = '[services.forking]\nmanager = "forking_manager:ForkingManager"\n'
BEFORE = ["unshare", "-fp", "--mount-proc"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run([*BEFORE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs root and a process namespace of its own",
)


def inner(daemon: DaemonProcess) -> int:
    """Return process 1 of the namespace, by its number outside."""
    children = Path(f"/proc/{daemon.running.pid}/task/{daemon.running.pid}/children")
    return int(wait_for(children.read_text, "the first process of the namespace").split()[0])


def below(pid: int) -> list[tuple[int, str]]:
    """Return the children of a process: numbers and states."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for number in children.read_text().split():
            try:
                stat = Path(f"/proc/{number}/stat").read_text()
            except OSError:  # reaped meanwhile
                continue
            found.append((int(number), stat.rpartition(")")[2].split()[0]))
    return found


@pytest.fixture
def contained(make_daemon, tmp_path) -> DaemonProcess:
    return make_daemon(CONFIG, {"HELD": str(tmp_path / "held")}).start(before=BEFORE)


@pytest.mark.failure_mode("Processes", "process 1 of a container")
def test_orphans_are_reaped_and_no_exit_code_is_taken_from_who_waits_for_it(contained) -> None:
    for _ in range(10):
        assert contained.call("forking", "orphan") == 7
    first = inner(contained)
    wait_for(lambda: len(below(first)) == 1, "the orphans to be reaped")
    ((daemon, _),) = below(first)
    assert not [each for each in below(daemon) if each[1] == "Z"]
    assert contained.call("forking", "pool") == [1, 2, 3]
    os.kill(first, signal.SIGTERM)
    assert contained.wait_end() == 0


@pytest.mark.failure_mode("Processes", "process 1 of a container")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_are_handlers_ends_process_1(make_daemon, tmp_path, number) -> None:
    daemon = make_daemon(CONFIG, {"HELD": str(tmp_path / "held")}).start(before=BEFORE, wait=False)
    wait_for(lambda: below(inner(daemon)), "the first process to look after another")
    os.kill(inner(daemon), number)
    assert daemon.wait_end() in (0, 128 + number, 130, 1)
    assert not any(fields.get("READY") for fields in daemon.notices.received)


def test_signals_are_passed_on_and_the_exit_code_is_the_daemons(contained) -> None:
    first = inner(contained)
    before = len(contained.notices.received)
    os.kill(first, signal.SIGHUP)
    contained.notices.wait(lambda fields: fields.get("RELOADING") == "1", after=before)
    contained.notices.ready(after=before)
    ((daemon, _),) = below(first)
    os.kill(daemon, signal.SIGKILL)
    assert contained.wait_end() == 128 + signal.SIGKILL
    contained.wait_log("was killed by SIGKILL")


def test_a_configuration_that_cannot_be_used_ends_with_78_there_too(make_daemon) -> None:
    daemon = make_daemon("[log]\nlevel = 7\n").start(before=BEFORE, wait=False)
    assert daemon.wait_end() == 78
