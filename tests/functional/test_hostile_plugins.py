"""Plugins whose errors cannot be described, and that do to the daemon's process what they should not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for

from ostler import Client, OstlerError

CONFIG = '[services.hostile]\nmanager = "hostile_manager:HostileManager"\n'


@pytest.fixture(scope="module")
def hostile() -> Any:
    daemon = DaemonProcess(CONFIG).start()
    yield daemon
    assert daemon.stop() == 0
    daemon.close()


def ask(client: Client, method: str, kind: str) -> Any:
    if method.endswith("items"):
        return list(client.stream("hostile", method, kind=kind))
    return client.call("hostile", method, kind=kind)


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
@pytest.mark.parametrize("method", ["plain", "loop", "items", "loop_items"])
@pytest.mark.parametrize("kind", ["asked", "nameless", "bare", "odd"])
def test_errors_that_cannot_be_described_are_answered(hostile, method: str, kind: str) -> None:
    with Client(root=str(hostile.root), timeout=5) as client:
        with pytest.raises(OstlerError) as found:
            ask(client, method, kind)
        assert type(found.value).__name__ in ("InternalError", "RemoteError"), found.value
        status = client.call("ostler", "status")
    assert status["services"][0]["in_flight"] == 0


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
@pytest.mark.parametrize("kind", ["asked", "nameless", "bare", "odd"])
def test_what_threads_raise_and_lines_hold_is_logged_whatever_it_is(hostile, kind: str) -> None:
    before = hostile.log.count("the thread Thread-")
    hostile.call("hostile", "elsewhere", kind=kind)
    wait_for(
        lambda: hostile.log.count("the thread Thread-") > before, "the end of the thread", more=lambda: hostile.log
    )
    assert "lines of the log could not be written" not in hostile.log


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
def test_exits_in_tasks_and_callbacks_do_not_end_the_daemon(hostile) -> None:
    hostile.call("hostile", "exit")
    hostile.wait_log("a task or callback of a plugin raised SystemExit: 3")
    hostile.wait_log("a task or callback of a plugin raised KeyboardInterrupt")
    assert hostile.status()["state"] == "up"


@pytest.mark.failure_mode("Plugins", "one that cancels all tasks, stops the loop or exits")
def test_a_plugin_that_cancels_all_tasks_does_not_end_the_daemon(make_daemon) -> None:
    daemon = make_daemon(CONFIG + 'report_interval = "1s"\n').start()
    daemon.call("hostile", "cancel_all")
    wait_for(lambda: daemon.status()["not_well"], "the tasks that failed to be told", more=lambda: daemon.log)
    assert "the daemon stops" not in daemon.log
    assert daemon.status()["state"] == "up"
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Plugins", "one that blocks the event loop")
def test_a_call_that_blocks_the_loop_is_named_with_file_and_line(make_daemon) -> None:
    daemon = make_daemon('[services.slow]\nmanager = "faulty_managers:BlockingManager"\n').start()
    assert daemon.json("call", "slow", "block", "seconds=0.6") == "done"
    logged = daemon.wait_log("the event loop was blocked for ")
    said = r"blocked for [0-9.]+m?s by .*/faulty_managers\.py:[0-9]+ in block \(once so far\)"
    assert re.search(said, logged), logged
    (line,) = [line for line in daemon.status()["not_well"] if "event loop" in line]
    assert "faulty_managers.py" in line
    assert line in daemon.command("status").stdout
