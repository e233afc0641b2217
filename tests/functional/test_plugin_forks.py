"""Forks of plugins, and what plugins leave behind: neither makes a second daemon, nor keeps what is the daemon's."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from daemon_process import WAIT_TIMEOUT, DaemonProcess, wait_for
from forking_manager import CODES

CONFIG = """
[services.forking]
manager = "forking_manager:ForkingManager"
[services.forking.drivers.device]
driver = "forking_manager:ForkingDriver"
"""


@pytest.fixture
def forking(make_daemon, tmp_path) -> DaemonProcess:
    daemon = make_daemon(CONFIG, {"HELD": str(tmp_path / "held")}).start()
    yield daemon
    assert daemon.process.poll() is not None or daemon.stop() == 0


def ask(daemon: DaemonProcess, method: str, **arguments: object) -> Any:
    return daemon.call("forking", method, **arguments)


@pytest.mark.parametrize("how", CODES)
def test_a_forked_child_ends_with_its_own_exit_code_wherever_it_was_forked(forking, how) -> None:
    asked = [ask(forking, method, how=how) for method in ("fork", "dfork", "afork")]
    asked.append(ask(forking, "afork", how=how, later=True))
    asked.append(ask(forking, "callback", how=how))
    assert asked == [CODES[how]] * 5
    if how == "raises":
        forking.wait_log("the child has failed")
    else:
        assert "the child has failed" not in forking.log
    assert forking.log.count("SIGTERM") == 0


def test_children_of_hooks_tasks_and_terminals_end_and_the_daemon_goes_on(forking) -> None:
    wait_for(lambda: ask(forking, "codes") == [9, 8], "the children of the hook and the task")
    assert ask(forking, "task") == 3
    assert ask(forking, "terminals") == 6
    assert ask(forking, "awaits") == 1
    forking.wait_log("a forked process must not await on the daemon's event loop")
    assert ask(forking, "pool") == [1, 2, 3]


@pytest.mark.failure_mode("Processes", "a signal for a forked child")
def test_terminate_of_a_child_after_its_fork_is_not_taken_for_the_daemons(forking) -> None:
    assert ask(forking, "terminate", count=60) == [-signal.SIGTERM] * 60
    assert "stopping" not in forking.log


def test_a_child_has_nothing_of_the_daemons(forking) -> None:
    lines = ask(forking, "look")
    assert not [line for line in lines if "ostler.db" in line or "ostler.lock" in line or "held" in line]
    assert not [line for line in lines if "socket:" in line]
    assert "SIGTERM 0" in " ".join(lines).replace("Handlers.SIG_DFL", "0")
    assert "wakeup -1" in lines
    assert "blocked set()" in lines


def test_a_child_that_uses_what_is_the_daemons_is_told_so_and_does_not_wait(forking) -> None:
    said = ask(forking, "use")
    assert len(said) == 3
    assert all("belongs to the daemon" in line for line in said)


@pytest.mark.failure_mode("Processes", "threads, executors and `atexit` of plugins that do not end")
def test_a_command_that_loads_a_plugin_with_a_thread_ends(make_daemon) -> None:
    daemon = make_daemon('[services.p]\nmanager = "threading_plugin:Plain"\n')
    source = (
        "import threading, time\nfrom ostler import Manager\n"
        "threading.Thread(target=time.sleep, args=(60,), name='forgotten').start()\n"
        "class Plain(Manager):\n    pass\n"
    )
    (daemon.root / "threading_plugin.py").write_text(source)
    began = time.monotonic()
    done = daemon.command("check", env={**daemon.environ, "PYTHONPATH": str(daemon.root)})
    assert "The configuration is valid" in done.stdout
    assert "still running at the end of the stop: thread forgotten" in done.stderr
    assert time.monotonic() - began < 20
    # A daemon that cannot start because of such a plugin ends likewise.
    daemon.configure('[services.p]\nmanager = "threading_plugin:Missing"\n')
    daemon.environ["PYTHONPATH"] = str(daemon.root)
    daemon.start(wait=False)
    assert daemon.wait_end() == 78


def test_programs_run_as_before(forking) -> None:
    assert ask(forking, "run") == "plain\nhooked\n"


@pytest.mark.failure_mode("Processes", "a forked child that outlives the daemon")
def test_a_child_that_outlives_a_killed_daemon_keeps_nothing(forking) -> None:
    child = int(ask(forking, "outlive"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(WAIT_TIMEOUT)
            client.connect(str(forking.root / "run" / "rpc.sock"))
            client.recv(10)
            forking.process.send_signal(signal.SIGKILL)
            forking.process.wait(WAIT_TIMEOUT)
            while client.recv(4096):
                pass  # its end is seen, which a child with a copy of the connection would prevent
        os.kill(child, 0)
        before = len(forking.notices.received)
        forking.start(wait=False).wait_ready(before)
        assert ask(forking, "codes")[0] == 9
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.failure_mode("Processes", "threads, executors and `atexit` of plugins that do not end")
@pytest.mark.failure_mode("Plugins", "what a plugin still runs when the daemon stops or dies")
def test_what_a_plugin_leaves_behind_is_named_and_holds_up_nothing(forking) -> None:
    left = int(ask(forking, "leave_running"))
    began = time.monotonic()
    try:
        assert forking.stop() == 0
        assert time.monotonic() - began < 10
        forking.wait_log("still running at the end of the stop: thread forgotten (time.sleep)")
        forking.wait_log(f"still running at the end of the stop: process {left} (sleep 61)")
        assert Path(f"/proc/{left}").exists()
    finally:
        os.kill(left, signal.SIGKILL)


@pytest.mark.failure_mode("Processes", "threads, executors and `atexit` of plugins that do not end")
@pytest.mark.failure_mode("Plugins", "what a plugin still runs when the daemon stops or dies")
def test_the_next_daemon_starts_beside_what_a_plugin_has_left_of_the_last_one(forking) -> None:
    left = ask(forking, "leave_all")
    began = time.monotonic()
    try:
        assert forking.stop() == 0
        assert time.monotonic() - began < 10
        for pid in left:
            assert Path(f"/proc/{pid}").exists()
            forking.wait_log(f"still running at the end of the stop: process {pid} (")
        forking.start()
        assert ask(forking, "codes")[0] == 9
    finally:
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
