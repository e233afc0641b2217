"""What the machine does to the process: suspends it, moves its clock, gives no memory, threads or descriptors."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading

import pytest
from daemon_process import NOBODY, as_nobody, cannot_become_nobody, wait_for
from machine_daemon import FaultyDaemon, Machine
from machine_shim import Shim

from ostler import Client, ConnectionLost, OperationState, OstlerError

pytest_plugins = ["machine_fixtures"]


# -------------------------------------------------------------------------------------------------------- suspended


@pytest.mark.failure_mode("Machine", "a suspended machine")
def test_a_suspended_daemon_goes_on_and_nobody_takes_it_for_hung(machine: Machine) -> None:
    daemon = machine.daemon('[messaging]\nkeepalive_interval = "500ms"\n')
    daemon.environ["WATCHDOG_USEC"] = "1000000"
    daemon.start()
    with Client(root=str(daemon.root), timeout=20) as client:
        operation = client.submit("records", "work", name="door", steps=10, seconds=0.2)
        wait_for(lambda: len(daemon.count_acts()) >= 2, "two steps")
        daemon.signal(signal.SIGSTOP)
        with pytest.raises(ConnectionLost, match=r"no response from records\.echo"):  # in seconds, not at its deadline
            client.call("records", "echo", text="while suspended")
        threading.Event().wait(2)  # four times as long as any evidence may be old
        before = len(daemon.notices.received)
        daemon.signal(signal.SIGCONT)
        assert client.call("records", "echo", text="after") == "after"
        assert operation.result(timeout=30) == "DOOR"
        assert operation.status.attempts == 1
    daemon.notices.wait(lambda fields: fields.get("WATCHDOG") == "1", after=before)
    assert daemon.count_acts() == {f"door {number}": 1 for number in range(10)}
    assert "withholding the watchdog ping" not in daemon.log
    daemon.wait_log("it was suspended, or its event loop was blocked")
    assert (daemon.records()["state"], daemon.records()["up"]) == ("up", True)
    daemon.wait_well()
    assert daemon.stop() == 0


# ------------------------------------------------------------------------------------------------------------ clock


@pytest.mark.failure_mode("State", "clock set an hour back and forth")
def test_a_wall_clock_that_is_set_back_and_forth(machine: Machine, shim: Shim) -> None:
    daemon = machine.daemon('[events]\njournal = ["*"]\n')
    daemon.environ.update(shim.environ())
    daemon.start()
    daemon.keep("before")
    with Client(root=str(daemon.root), timeout=20) as client:
        operation = client.submit("records", "work", name="door", steps=30, seconds=0.1)
        for hours in (1, -1, 24 * 400, -24 * 400, 0):
            shim.set(wall_offset=hours * 3600)
            runs, beat = ticks(daemon), daemon.records()["beat"]
            wait_for(lambda runs=runs: ticks(daemon) > runs + 1, "periodic runs", 10, lambda: daemon.log)
            wait_for(lambda beat=beat: daemon.records()["beat"] > beat, "a heartbeat", 10, lambda: daemon.log)
            assert (daemon.records()["state"], daemon.records()["up"]) == ("up", True)
            daemon.keep(f"at {hours}")
            daemon.assert_nothing_lost()
            if hours == 24 * 400:
                daemon.wait_problem("the wall clock was set forward by 400.0 days")
            else:
                assert daemon.problems() == ""
        assert operation.result(timeout=30) == "DOOR"
        assert operation.status.attempts == 1
    assert daemon.count_acts() == {f"door {number}": 1 for number in range(30)}
    shim.set(wall_offset=-3600)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    daemon.assert_nothing_lost()
    assert daemon.records()["up"]


def ticks(daemon: FaultyDaemon) -> int:
    (found,) = [each["runs"] for each in daemon.json("periodic", "list") if each["task"] == "tick"]
    assert isinstance(found, int)
    return found


# ----------------------------------------------------------------------------------------------- memory and threads


@pytest.mark.failure_mode("Machine", "no memory for a request")
def test_a_request_that_needs_more_memory_than_there_is_fails_alone(machine: Machine) -> None:
    daemon = machine.daemon()
    limit = 400 * 2**20
    daemon.start(before=["bash", "-c", f'ulimit -v {limit // 1024}; exec "$@"', "-"])
    daemon.keep("before")
    for _ in range(3):
        with pytest.raises(OstlerError, match="MemoryError"):
            daemon.call("records", "keep", key="big", size=limit)
        daemon.keep(f"{len(daemon.acknowledged)}")
    daemon.assert_nothing_lost()
    daemon.wait_well()
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_a_daemon_that_gets_no_more_threads_refuses_work_and_goes_on_when_it_does(machine: Machine) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = machine.daemon()
    daemon.give_to_nobody()
    daemon.acts.touch()
    os.chown(daemon.acts, NOBODY, NOBODY)
    for folder in (daemon.acts, *daemon.acts.parents):
        if folder.is_relative_to("/tmp") and folder.owner() == "root" and folder.is_dir():
            folder.chmod(folder.stat().st_mode | 0o1)
    daemon.start(before=as_nobody())
    daemon.keep("before")
    usual = limit_threads(daemon, "1")
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(daemon.call("records", "pause", seconds=0.5))
        except OstlerError as error:
            outcomes.append(error)

    callers = [threading.Thread(target=work) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    refused = [each for each in outcomes if isinstance(each, OstlerError)]
    assert len(outcomes) == 6
    assert all("thread" in str(each) for each in refused), refused
    assert daemon.call("records", "echo", text="still") == "still"
    limit_threads(daemon, usual)
    daemon.keep("after")
    daemon.assert_nothing_lost()
    daemon.wait_well()
    assert daemon.stop() == 0


def limit_threads(daemon: FaultyDaemon, most: str) -> str:
    """Set how many tasks its user may have before it gets no more threads; return the limit before."""
    command = [*as_nobody(), "prlimit", "--pid", str(daemon.running.pid)]
    shown = subprocess.run(
        [*command, "--nproc", "-o", "SOFT", "--noheadings"], capture_output=True, text=True, check=True
    )
    subprocess.run([*command, f"--nproc={most}:"], check=True)
    return shown.stdout.strip()


@pytest.mark.root
@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_a_start_without_threads_is_one_line(machine: Machine) -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)
    daemon = machine.daemon()
    daemon.give_to_nobody()
    daemon.start(wait=False, before=[*as_nobody(), "bash", "-c", 'ulimit -u 1; exec "$@"', "-"])
    assert daemon.wait_end() == 1
    assert "Traceback" not in daemon.log
    (why,) = [line for line in daemon.log.splitlines() if " CRITICAL " in line]
    assert "could not start: ostler-open cannot start a thread; raise TasksMax or free memory" in why


# ------------------------------------------------------------------------------------------------------ descriptors


@pytest.mark.failure_mode("Machine", "no descriptors left")
def test_a_running_daemon_whose_descriptors_are_all_taken_goes_on_when_they_are_not(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("before")
    pid = daemon.running.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with Client(root=str(daemon.root), timeout=10) as held:
        held.call("records", "echo", text="connected")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))  # those that are open stay open
        for number in range(5):
            held.call("records", "keep", key=f"held {number}")
            daemon.acknowledged.add(f"held {number}")
        with pytest.raises(OstlerError):
            daemon.call("records", "echo", text="one more connection")
        assert held.call("records", "echo", text="still") == "still"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        wait_for(lambda: answers(daemon), "another connection", 20, lambda: daemon.log)
    daemon.assert_nothing_lost()
    daemon.wait_well()
    assert daemon.stop() == 0


def answers(daemon: FaultyDaemon) -> bool:
    try:
        return bool(daemon.call("records", "echo", text="well") == "well")
    except OstlerError:
        return False


# --------------------------------------------------------------------------------------------------- users, sockets


@pytest.mark.root
@pytest.mark.failure_mode("Machine", "started as root")
def test_a_daemon_started_as_root_serves_and_keeps_its_state_to_itself(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    daemon = machine.daemon().start()
    daemon.keep("one")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (daemon.root / "state").iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert (daemon.root / "state").stat().st_mode & 0o777 == 0o700
    daemon.make_traversable()
    if why := cannot_become_nobody():
        pytest.skip(why)
    seen = daemon.command("status", check=None, before=as_nobody())
    assert seen.returncode != 0
    assert "one" not in seen.stdout
    assert daemon.stop() == 0


@pytest.mark.failure_mode("Machine", "a socket left over from a dead daemon, and one of a living daemon")
def test_a_killed_daemon_is_followed_by_one_and_a_living_one_is_not(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("one")
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    assert (daemon.root / "run" / "rpc.sock").exists()
    daemon.start()
    second = subprocess.run(
        [*daemon.running.args[:3], "run"], env=daemon.environ | {"NOTIFY_SOCKET": ""},
        capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"in use by another daemon (process {daemon.running.pid})" in second.stderr
    assert "stop that one first" in second.stderr
    daemon.keep("two")
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("Machine", "a suspended machine")
def test_a_client_with_a_deadline_is_told_while_the_daemon_is_suspended(machine: Machine) -> None:
    daemon = machine.daemon().start()
    with Client(root=str(daemon.root), timeout=20) as client:
        operation = client.submit("records", "work", name="door", steps=1)
        operation.result(timeout=10)
        daemon.signal(signal.SIGSTOP)
        try:
            with pytest.raises(OstlerError):
                client.on(timeout=1).call("records", "echo", text="x")
        finally:
            daemon.signal(signal.SIGCONT)
        assert client.call("records", "echo", text="y") == "y"
        assert operation.refresh().state is OperationState.SUCCEEDED
