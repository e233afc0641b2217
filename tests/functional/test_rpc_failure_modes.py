"""Failure modes of RPC that show themselves only with a daemon in a process of its own."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from daemon_process import OSTLER, DaemonProcess, wait_for

from ostler import Client, Conflict, ConnectionLost, MethodNotFound

CONFIG = """
[services.echo]
manager = "faulty_managers:EchoManager"
[services.foreign]
manager = "foreign_client_manager:ForeignClientManager"
"""
GROWTH = 1024
"""KiB that a process may grow while it refuses 9,000 calls: less than 120 bytes for each."""


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    made: DaemonProcess = make_daemon(CONFIG).start()
    return made


def size(daemon: DaemonProcess) -> tuple[int, int, int]:
    """Return its threads, descriptors and KiB of memory."""
    process = Path(f"/proc/{daemon.running.pid}")
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(lines["Threads"]), len(list((process / "fd").iterdir())), int(lines["VmRSS"].split()[0])


@pytest.mark.failure_mode("RPC", "10,000 calls to a missing method")
def test_10000_calls_to_a_missing_method(daemon) -> None:
    """Threads, descriptors and memory are as before, and each was refused and counted."""
    with Client(root=str(daemon.root)) as client:

        def some(count: int) -> None:
            for number in range(count):
                with pytest.raises(MethodNotFound):
                    client.call("echo", f"missing{number}")  # each by another name: nothing may be kept of a name

        some(1000)
        client.call("ostler", "traffic")
        threads, descriptors, memory = size(daemon)
        some(9000)
        after = wait_for(
            lambda: (now := size(daemon))[:2] == (threads, descriptors) and now, "threads and descriptors as before",
            more=lambda: ((threads, descriptors), size(daemon)),
        )  # fmt: skip
        assert after[2] - memory < GROWTH
        assert client.call("ostler", "dump")["messages"]["topics"]["echo"]["refused"] == 10_000


@pytest.mark.failure_mode("RPC", "an exception the client does not know")
def test_an_exception_the_client_does_not_know(daemon) -> None:
    """The class is only in the daemon: the caller gets its nearest base, and the name as a fact."""
    with Client(root=str(daemon.root)) as client, pytest.raises(Conflict, match="no paper left; add some") as caught:
        client.call("foreign", "refuse")
    assert type(caught.value) is Conflict
    assert caught.value.details == {"sheets": 0, "name": "foreign_client_manager.OutOfPaper"}


@pytest.mark.failure_mode("RPC", "a caller that goes away")
def test_a_caller_that_is_killed(daemon) -> None:
    command = [OSTLER, "--root", str(daemon.root), "call", "echo", "sleep", "seconds=300", "--timeout", "600"]
    with Client(root=str(daemon.root)) as client:

        def under_way() -> int:
            found = client.call("ostler", "dump")["messages"]["topics"]["echo"]["in_flight"]
            assert isinstance(found, int)
            return found

        caller = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(under_way, "the call")
        caller.kill()
        caller.wait()
        wait_for(lambda: not under_way(), "its work to be cancelled", timeout=5)


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
def test_a_daemon_that_is_killed_under_a_call(daemon) -> None:
    with Client(root=str(daemon.root)) as client:
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {daemon.running.pid}"])
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="may or may not have been executed"):
            client.on(timeout=100).call("echo", "sleep", seconds=60)
        assert time.monotonic() - began < 5
        killer.wait()
