"""Periodic tasks in a real daemon that do all the things that go wrong, and what an operator sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for

BUSY = """
[daemon]
stop_timeout = "1s"
[services.busy]
manager = "faulty_managers:FaultyTasksManager"
notes = "{root}/notes"
drain_timeout = "0.2s"
"""
BLOCKER = """
[services.blocker]
manager = "faulty_managers:LoopBlockingManager"
workers = 1
drain_timeout = "0.2s"
"""


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    """A daemon with tasks of every kind, and a neighbour that blocks its only thread."""
    made: DaemonProcess = make_daemon(BUSY + BLOCKER)
    (made.root / "notes").mkdir()
    return made.start()


def task(daemon: DaemonProcess, name: str, service: str = "busy") -> dict[str, Any]:
    """Return a task as `ostler periodic list` shows it."""
    rows = daemon.call("ostler", "periodic_list")
    return next(row for row in rows if (row["service"], row["task"]) == (service, name))


def notes(daemon: DaemonProcess, name: str) -> list[float]:
    path: Path = daemon.root / "notes" / name
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def others_go_on(daemon: DaemonProcess) -> None:
    """Wait until the tasks that do no harm have run ten times more."""
    for name in ("well", "well_on_the_loop"):
        before = task(daemon, name)["runs"]
        wait_for(lambda name=name, before=before: task(daemon, name)["runs"] >= before + 10, f"{name} to run on")
        assert task(daemon, name)["errors"] == 0


def failing(daemon: DaemonProcess, name: str, text: str) -> None:
    row = wait_for(lambda: (found := task(daemon, name))["errors"] >= 5 and found, f"{name} to run again and again")
    assert row["runs"] >= row["errors"] >= 5
    assert text in row["last_error"]
    assert row["next_run"] > 0
    what = f"task_runner: periodic task {name} of busy failed"
    said = [line for line in daemon.wait_log(what).splitlines() if what in line]
    assert len(said) == 1
    others_go_on(daemon)


@pytest.mark.failure_mode("Periodic", "one that raises")
@pytest.mark.parametrize(("name", "text"), [("raises", "no paper left"), ("raises_on_the_loop", "no ink left")])
def test_a_periodic_task_that_raises(daemon, name: str, text: str) -> None:
    failing(daemon, name, text)
    if name == "raises":
        (daemon.root / "notes" / "good").touch()
        daemon.wait_log("periodic task raises of busy works again")
        assert task(daemon, name)["last_error"] == ""


@pytest.mark.failure_mode("Periodic", "one that raises `SystemExit`")
@pytest.mark.parametrize("name", ["leaves", "leaves_on_the_loop"])
def test_a_periodic_task_that_raises_system_exit(daemon, name: str) -> None:
    failing(daemon, name, "SystemExit: 3")
    assert daemon.running.poll() is None


@pytest.mark.failure_mode("Periodic", "one that never ends")
def test_a_periodic_task_that_never_ends(daemon) -> None:
    wait_for(lambda: task(daemon, "never_ends")["running_since"] > 0, "it to begin")
    others_go_on(daemon)
    row = task(daemon, "never_ends")
    assert row["running_since"] > 0
    assert len(notes(daemon, "never_ends")) == 1
    daemon.wait_log("periodic task never_ends of busy is slower than its spacing")
    shown = [line for line in daemon.command("periodic", "list").stdout.splitlines() if "never_ends" in line]
    assert "running for" in shown[0]
    # It holds up a stop no longer than the stop may take, and is named.
    daemon.stop()
    assert "never_ends" in daemon.log.split("SIGTERM")[-1]


@pytest.mark.failure_mode("Periodic", "one slower than its spacing")
def test_a_periodic_task_that_is_slower_than_its_spacing(daemon) -> None:
    wait_for(lambda: task(daemon, "slow")["runs"] >= 4, "it to run four times")
    times = notes(daemon, "slow")
    begins, ends = times[0::2], times[1::2]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False)), "never twice at once"
    what = "task_runner: periodic task slow of busy is slower"
    said = [line for line in daemon.wait_log(what).splitlines() if what in line]
    assert len(said) == 1
    assert task(daemon, "slow")["last_seconds"] >= 0.2
    others_go_on(daemon)


@pytest.mark.failure_mode("Periodic", "one neighbour that blocks")
def test_a_neighbour_that_blocks(daemon) -> None:
    wait_for(lambda: task(daemon, "block", "blocker")["running_since"] > 0, "the neighbour to block")
    others_go_on(daemon)
    assert task(daemon, "tick", "blocker")["runs"] == 0  # its own other task waits for its only thread
    assert daemon.call("blocker", "echo_async", text="on the loop")["text"] == "on the loop"
    assert daemon.status()["state"] in ("up", "degraded")  # degraded as soon as the report says which task is slow


@pytest.mark.failure_mode("Periodic", "a spacing changed by reload")
def test_a_spacing_changed_by_reload(daemon) -> None:
    wait_for(lambda: task(daemon, "well")["runs"] >= 3, "it to run")
    daemon.configure('[services.busy]\npace = "1h"\n', "conf.d/pace.toml")
    verdict = daemon.json("reload")
    assert "services.busy.pace" in [change["path"] for change in verdict["changes"]]
    assert verdict["needs_restart"] == []
    row = task(daemon, "well")
    assert row["spacing"] == "1h"
    wait_for(lambda: not task(daemon, "well")["running_since"], "a run under way to end")
    runs = task(daemon, "well")["runs"]
    daemon.configure('[services.busy]\npace = "0.1s"\n', "conf.d/pace.toml")
    assert task(daemon, "well")["runs"] == runs
    daemon.command("reload")
    wait_for(lambda: task(daemon, "well")["runs"] >= runs + 3, "it to run by its new spacing")


def test_tasks_are_listed_run_paused_and_resumed(daemon) -> None:
    listed = daemon.command("periodic", "list").stdout
    for words in ("well_on_the_loop", "50ms", "failing", "ValueError: no paper left"):
        wait_for(lambda words=words: words in daemon.command("periodic", "list").stdout, words, more=lambda: listed)
    assert "paused" in daemon.command("periodic", "pause", "busy", "well").stdout
    row = wait_for(lambda: not (found := task(daemon, "well"))["running_since"] and found, "a last run to end")
    assert row["paused"]
    assert row["next_run"] == 0
    others = task(daemon, "well_on_the_loop")["runs"]
    wait_for(lambda: task(daemon, "well_on_the_loop")["runs"] > others + 5, "the others to run on")
    paused = task(daemon, "well")["runs"]
    daemon.command("periodic", "run", "busy", "well")
    wait_for(lambda: task(daemon, "well")["runs"] == paused + 1, "one run")
    daemon.command("periodic", "resume", "busy", "well")
    wait_for(lambda: task(daemon, "well")["runs"] > paused + 3, "it to run again")


@pytest.mark.failure_mode("Periodic", "one that raises")
@pytest.mark.failure_mode("Periodic", "one slower than its spacing")
def test_a_service_whose_tasks_fail_or_are_slow_is_degraded_by_name(make_daemon) -> None:
    quick = 'report_interval = "0.3s"\ndown_time = "5s"\n'
    daemon: DaemonProcess = make_daemon(BUSY + quick)
    (daemon.root / "notes").mkdir()
    daemon.start()

    def evidence() -> dict[str, str]:
        (service,) = [row for row in daemon.status()["services"] if row["topic"] == "busy"]
        found: dict[str, str] = service["evidence"]
        return found if service["state"] == "degraded" else {}

    for name, text in (("raises", "ValueError: no paper left"), ("leaves", "SystemExit"), ("never_ends", "slower")):
        key = f"periodic task {name}"
        wait_for(lambda key=key, text=text: text in evidence().get(key, ""), f"{name} to be seen")
    assert "periodic task well" not in evidence()
    shown = daemon.command("status").stdout
    assert shown.count("periodic task raises of busy failed 3 times in a row") == 2, (
        "with its service, and as a problem"
    )


def test_a_pause_lasts_over_a_kill_and_the_history_over_a_restart(daemon) -> None:
    wait_for(lambda: task(daemon, "raises")["runs"] >= 3, "it to run")
    daemon.command("periodic", "pause", "busy", "raises", "--reason", "the printer moves")
    daemon.running.kill()
    daemon.wait_end()
    daemon.start()
    row = task(daemon, "raises")
    assert (row["paused"], row["pause_reason"], row["next_run"]) == (True, "the printer moves", 0)
    shown = daemon.command("periodic", "show", "busy", "raises").stdout
    assert ": the printer moves" in shown
    wait_for(lambda: task(daemon, "well")["runs"] >= 3, "another to run")
    daemon.stop()
    daemon.start()
    runs = daemon.json("periodic", "show", "busy", "slow")["runs"]
    assert runs, "stored by the stop"
    assert runs[-1]["seconds"] >= 0.2
    assert "paused" not in daemon.command("periodic", "resume", "busy", "raises").stdout
    wait_for(lambda: task(daemon, "raises")["failures"] >= 2, "it to run again")


def test_tasks_that_cannot_be_run_are_refused_by_name(daemon) -> None:
    wait_for(lambda: task(daemon, "never_ends")["running_since"] > 0, "it to begin")
    assert (
        "periodic task wel of service busy not found"
        in daemon.command("periodic", "run", "busy", "wel", check=1).stderr
    )
    assert "periodic task" in daemon.command("periodic", "pause", "nobody", "well", check=1).stderr
    assert "running" in daemon.command("periodic", "run", "busy", "never_ends", check=1).stderr
