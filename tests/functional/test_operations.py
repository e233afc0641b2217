"""Operations of a real daemon, which is killed, stopped and started again."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from daemon_process import OSTLER, DaemonProcess, wait_for

from ostler import Cancelled, Client, ConnectionLost, OperationInterrupted, OperationState

CONFIG = """
[services.paint]
manager = "operation_manager:PaintManager"
acts = "{acts}"
max_operations = 4
"""


@pytest.fixture
def acts(tmp_path: Path) -> Path:
    return tmp_path / "acts"


@pytest.fixture
def daemon(make_daemon, acts) -> DaemonProcess:
    made: DaemonProcess = make_daemon(CONFIG.format(acts=acts)).start()
    return made


@pytest.fixture
def client(daemon):
    with Client(root=str(daemon.root)) as opened:
        yield opened


def lines(acts: Path) -> list[str]:
    return acts.read_text(encoding="utf-8").splitlines() if acts.exists() else []


def kill_and_start(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()


def test_an_operation_goes_on_after_kill_9_and_its_watcher_sees_it_end(daemon, client, acts) -> None:
    operation = client.submit("paint", "paint", name="door", coats=5, seconds=0.2)
    killer = threading.Thread(
        target=lambda: (wait_for(lambda: len(lines(acts)) >= 2, "two coats"), kill_and_start(daemon))
    )
    killer.start()
    states = [(status.state, status.attempts) for status in operation.watch(timeout=60)]
    killer.join()
    assert operation.result() == "DOOR"
    assert states[0] == (OperationState.RUNNING, 1)
    assert states[-1] == (OperationState.SUCCEEDED, 2)
    assert operation.status.interruptions == 1
    # At most the coat in whose midst the daemon was killed was put on twice.
    counts = Counter(lines(acts))
    assert sorted(counts) == [f"door {coat}" for coat in range(5)]
    assert sum(counts.values()) <= 6


def test_what_must_not_run_twice_fails_and_what_declares_it_is_undone(daemon, client, acts) -> None:
    once = client.submit("paint", "once", name="wall", seconds=30)
    undone = client.submit("paint", "put_up", name="shelf", seconds=30)
    wait_for(lambda: len(lines(acts)) == 2, "both to have begun")
    kill_and_start(daemon)
    with pytest.raises(OperationInterrupted, match="the daemon ended while operation"):
        once.result(timeout=30)
    with pytest.raises(OperationInterrupted, match="what it had begun was undone"):
        undone.result(timeout=30)
    assert sorted(lines(acts)) == ["once wall", "put up shelf", "take down shelf"]


def test_what_waits_is_begun_after_a_kill_and_nothing_that_was_accepted_is_lost(daemon, client, acts) -> None:
    operations = [client.submit("paint", "paint", name=f"n{number}", coats=1, seconds=0.05) for number in range(40)]
    kill_and_start(daemon)
    assert [one.result(timeout=60) for one in operations] == [f"N{number}" for number in range(40)]
    assert set(lines(acts)) == {f"n{number} 0" for number in range(40)}


def test_the_same_id_over_a_kill_is_the_same_operation(daemon, client, acts) -> None:
    first = client.on(request_id="my-own").submit("paint", "paint", name="gate")
    assert first.result(timeout=30) == "GATE"
    kill_and_start(daemon)
    again = client.on(request_id="my-own").submit("paint", "paint", name="gate")
    assert (again.id, again.status.state) == ("my-own", OperationState.SUCCEEDED)
    assert again.result() == "GATE"
    assert lines(acts) == ["gate 0", "gate 1", "gate 2"]


def test_a_caller_of_a_durable_method_that_loses_its_connection_cancels_nothing(daemon, client, acts) -> None:
    caller = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "call", "paint", "paint", "name=roof", "seconds=0.3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: lines(acts), "the first coat")
    caller.kill()
    caller.communicate()
    wait_for(lambda: len(lines(acts)) == 3, "the last coat")
    (row,) = wait_for(
        lambda: (rows := daemon.json("operation", "list")) and rows[0]["state"] == "succeeded" and rows, "its end"
    )
    assert row["method"] == "paint"


def test_a_call_that_is_interrupted_cancels_its_operation(daemon, client, acts) -> None:
    caller = subprocess.Popen(
        [OSTLER, "--root", str(daemon.root), "call", "paint", "paint", "name=roof", "seconds=30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: lines(acts), "the first coat")
    caller.send_signal(signal.SIGINT)
    caller.communicate(timeout=30)
    (row,) = wait_for(
        lambda: (rows := daemon.json("operation", "list")) and rows[0]["state"] == "cancelled" and rows, "its end"
    )
    assert row["why"] == "cancelled by uid 0" or row["why"].startswith("cancelled by")


def test_a_call_that_is_waiting_when_the_daemon_is_killed_learns_that_it_is_lost(daemon, client, acts) -> None:
    lost: list[BaseException] = []

    def call() -> None:
        try:
            client.call("paint", "paint", name="fence", coats=2, seconds=0.3)
        except ConnectionLost as error:
            lost.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: lines(acts), "the first coat")
    kill_and_start(daemon)
    caller.join(30)
    assert len(lost) == 1
    (row,) = wait_for(
        lambda: (rows := daemon.json("operation", "list")) and rows[0]["state"] == "succeeded" and rows, "its end"
    )
    assert row["attempts"] == 2


def test_a_stop_waits_for_what_runs_and_the_next_start_begins_what_waits(daemon, client, acts) -> None:
    running = [client.submit("paint", "paint", name=f"r{number}", coats=1, seconds=0.5) for number in range(4)]
    waiting = client.submit("paint", "paint", name="later", coats=1)
    wait_for(lambda: len(lines(acts)) == 4, "four to run")
    assert daemon.stop() == 0
    assert "later 0" not in lines(acts)
    daemon.start()
    assert [one.result(timeout=30) for one in running] == ["R0", "R1", "R2", "R3"]
    assert waiting.result(timeout=30) == "LATER"
    assert Counter(lines(acts)).most_common(1)[0][1] == 1


def test_a_cancelled_operation_stays_cancelled_over_a_kill(daemon, client, acts) -> None:
    operation = client.submit("paint", "paint", name="door", seconds=30)
    wait_for(lambda: lines(acts), "the first coat")
    operation.cancel()
    with pytest.raises(Cancelled):
        operation.result(timeout=30)
    kill_and_start(daemon)
    assert operation.refresh().state is OperationState.CANCELLED
    assert lines(acts) == ["door 0"]


def test_the_command_submits_watches_and_lists(daemon, acts) -> None:
    found = daemon.command("submit", "paint", "paint", "name=door", "coats=2", "--id", "by-hand").stdout.strip()
    assert found == "by-hand"
    watched = daemon.command("operation", "watch", "by-h").stdout.splitlines()
    assert "succeeded" in watched[-1]
    shown = daemon.json("operation", "show", "by-hand")
    assert (shown["result"], shown["steps"]) == ("DOOR", ["coat 0", "coat 1"])
    assert daemon.command("submit", "--wait", "paint", "paint", "name=gate").stdout.strip() == "GATE"
    rows = daemon.json("operation", "list")
    assert [(row["method"], row["state"]) for row in rows] == [("paint", "succeeded")] * 2
    assert daemon.command("operation", "show", "nothing", check=1).stderr.startswith(
        "ostler: operation nothing not found"
    )
    assert daemon.json("operation", "prune", "--keep", "1") == {"removed": 1}
    assert len(daemon.json("operation", "list")) == 1
