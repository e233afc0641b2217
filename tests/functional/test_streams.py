"""Streams and retries of a real daemon, in a real process: what is killed, cut off and taken back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time

import pytest
from daemon_process import OSTLER, DaemonProcess, wait_for

from ostler import Busy, Client, ConnectionLost, DaemonNotRunning, Retry
from ostler.errors import WrongCallKind

ECHO = """
[services.echo]
manager = "faulty_managers:EchoManager"
workers = 2
"""


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    return make_daemon(ECHO).start()


def following(daemon: DaemonProcess, *words: str) -> subprocess.Popen[str]:
    command = [OSTLER, "--root", str(daemon.root), "--json", "call", "echo", "ticks", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_call_prints_what_comes_and_ctrl_c_ends_it_on_the_server(daemon, tmp_path) -> None:
    mark = tmp_path / "mark"
    follower = following(daemon, f"mark={mark}")
    assert follower.stdout is not None
    assert [json.loads(follower.stdout.readline()) for _ in range(3)] == [0, 1, 2]
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=20)
    assert follower.returncode == 130
    assert "Traceback" not in said
    wait_for(mark.exists, "the generator to be closed")
    assert mark.read_text(encoding="ascii") == "True"


@pytest.mark.failure_mode("RPC", "a caller that goes away")
def test_a_reader_that_is_killed_ends_its_stream(daemon, tmp_path) -> None:
    mark = tmp_path / "mark"
    follower = following(daemon, f"mark={mark}")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "0\n"
    follower.kill()
    follower.communicate(timeout=20)
    wait_for(mark.exists, "the generator to be closed")
    wait_for(lambda: daemon.call("ostler", "dump")["messages"]["topics"]["echo"]["in_flight"] == 0, "nothing in flight")


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
def test_a_daemon_killed_in_the_middle_of_a_stream_is_known_within_5_seconds(daemon) -> None:
    with Client(root=str(daemon.root)) as client:
        found, killed = [], 0.0

        def read() -> None:
            nonlocal killed
            for item in client.stream("echo", "ticks"):
                found.append(item)
                if item == 3:
                    killed = time.monotonic()
                    os.kill(daemon.running.pid, signal.SIGKILL)

        with pytest.raises(ConnectionLost, match=r"while echo\.ticks was in progress"):
            read()
        assert time.monotonic() - killed < 5
        assert found[:4] == [0, 1, 2, 3]


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
def test_a_daemon_killed_under_a_call_with_retries_is_known_within_5_seconds(daemon) -> None:
    with Client(
        root=str(daemon.root), retry=Retry(attempts=2, backoff=0.1, on=(ConnectionLost, DaemonNotRunning))
    ) as client:
        threading.Timer(0.5, os.kill, (daemon.running.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        # Not "nobody listens": the first attempt may have been at work.
        with pytest.raises(ConnectionLost, match="may or may not have been executed") as caught:
            client.call("echo", "sleep", seconds=60)
        assert time.monotonic() - began < 5
        assert caught.value.attempts == 2


def test_a_call_that_may_come_again_waits_for_the_daemon_to_be_back(daemon) -> None:
    # A daemon listens a moment before its services are open, and says so.
    policy = Retry(attempts=50, backoff=0.2, max_backoff=0.5, on=(Busy, ConnectionLost, DaemonNotRunning))
    with Client(root=str(daemon.root), retry=policy) as client:
        before = client.call("echo", "echo", text="a")
        daemon.stop()
        done = []
        waiting = threading.Thread(target=lambda: done.append(client.call("echo", "echo", text="b")))
        waiting.start()
        daemon.start()
        waiting.join(20)
        assert done[0]["text"] == "b"
        assert done[0]["pid"] != before["pid"]


def test_a_daemon_that_stops_ends_its_streams_and_is_not_held_up(daemon) -> None:
    with Client(root=str(daemon.root)) as client:
        stream = client.stream("echo", "ticks", spacing=60)
        assert next(stream) == 0
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        with pytest.raises(
            Exception, match=r"echo\.ticks was stopped|lost the connection to the daemon while echo\.ticks"
        ):
            next(stream)


def test_the_wrong_way_to_ask_is_an_error_that_says_the_right_one(daemon) -> None:
    with Client(root=str(daemon.root)) as client:
        with pytest.raises(WrongCallKind, match=r"client\.stream"):
            client.call("echo", "ticks")
        with pytest.raises(WrongCallKind, match=r"client\.call"):
            next(client.stream("echo", "echo"))
    assert "client.stream" in daemon.command("cast", "echo", "ticks", check=2).stderr
