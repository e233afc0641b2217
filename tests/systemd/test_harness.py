"""The harness itself: a real systemd that starts, watches and stops a tiny daemon, and leaves nothing behind."""

import os
import signal
from pathlib import Path

import pytest
from systemd_container import BootFailed, SystemdContainer

TINY_DAEMON = """\
import os, signal, socket
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
notify.send(b"READY=1\\nSTATUS=tiny and well")
print("started", flush=True)
signal.pause()
"""
UNIT = """\
[Service]
Type=notify
ExecStart=/usr/bin/python3 /opt/tiny.py
"""


def install(machine: SystemdContainer, name: str, more: str = "") -> None:
    machine.write("/opt/tiny.py", TINY_DAEMON)
    machine.write(f"/run/systemd/system/{name}.service", UNIT + more)
    machine.systemctl("daemon-reload")


def test_the_booted_systemd_is_well(bare_machine):
    assert bare_machine.systemctl("is-system-running").stdout == "running\n"


def test_start_returns_when_the_daemon_has_said_ready(bare_machine):
    install(bare_machine, "tiny-ready")
    bare_machine.systemctl("start", "tiny-ready")
    shown = bare_machine.show("tiny-ready", "ActiveState", "StatusText", "Type")
    assert shown == {"ActiveState": "active", "StatusText": "tiny and well", "Type": "notify"}
    bare_machine.systemctl("stop", "tiny-ready")


def test_the_watchdog_kills_and_restarts_a_daemon_that_does_not_ping(bare_machine):
    install(bare_machine, "tiny-watched", "WatchdogSec=300ms\nRestart=on-failure\nRestartSec=50ms\n")
    after = bare_machine.cursor()
    bare_machine.systemctl("start", "tiny-watched")
    bare_machine.await_entry("tiny-watched", "Watchdog timeout", after=after)
    bare_machine.await_entry("tiny-watched", "status=6/ABRT", after=after)
    bare_machine.await_entry("tiny-watched", "Scheduled restart job", after=after)
    bare_machine.systemctl("stop", "tiny-watched")


def test_signals_reach_the_main_process_from_outside(bare_machine):
    install(bare_machine, "tiny-signalled")
    bare_machine.systemctl("start", "tiny-signalled")
    after = bare_machine.cursor()
    os.kill(bare_machine.main_pid("tiny-signalled"), signal.SIGKILL)
    bare_machine.await_entry("tiny-signalled", "status=9/KILL", after=after)


def test_an_entry_that_does_not_come_says_what_came_instead(bare_machine):
    install(bare_machine, "tiny-silent")
    bare_machine.systemctl("start", "tiny-silent")
    with pytest.raises(AssertionError, match=r"did not log 'never said'(.|\n)*started"):
        bare_machine.await_entry("tiny-silent", "never said", timeout=0.5)
    bare_machine.systemctl("stop", "tiny-silent")


def test_nothing_inside_reaches_this_machine(bare_machine):
    bare_machine.write("/etc/only-inside", "x")
    assert not Path("/etc/only-inside").exists()


@pytest.mark.usefixtures("bare_machine")
def test_a_boot_that_fails_says_why_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "failing"
    folder.mkdir()
    with pytest.raises(BootFailed, match="no-such-folder"):
        SystemdContainer(folder, ["--bind=/no-such-folder"])
    assert not folder.exists()
    assert leftovers() == []


def test_a_machine_that_is_closed_leaves_nothing_behind(bare_machine, tmp_path):
    folder = tmp_path / "short-lived"
    folder.mkdir()
    machine = SystemdContainer(folder)
    try:
        assert machine.systemctl("is-system-running").stdout == "running\n"
    finally:
        machine.close()
        machine.close()
    assert bare_machine.run("true").returncode == 0, "the other machine goes on"
    assert not folder.exists()
    assert leftovers() == []


def leftovers() -> list[str]:
    """Return the control groups of the two machines that the tests above took down."""
    return [str(path) for name in ("failing", "short-lived") for path in Path("/sys/fs/cgroup").glob(f"**/*-{name}")]
