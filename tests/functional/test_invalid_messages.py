"""What strangers send to the sockets of a real daemon: counted, dropped, logged once a minute, and nobody notices."""

from __future__ import annotations

import random
import re
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq
from daemon_process import DaemonProcess, wait_for

from ostler import Client

ECHO = """
[services.echo]
manager = "faulty_managers:EchoManager"
[messaging]
max_message_size = "64KiB"
"""
OWN = 8
REQUEST = [1, 1, 7, "echo", "echo", {"text": "x"}, 1.0, "id", 0, "", ""]
GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03"
NO_ZMTP = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 4096, b"\xff" * 64, b"\x16\x03\x01\x02\x00\x01", b"\n", b"",
    GREETING, GREETING + b"\x00CURVE" + bytes(60), GREETING + b"\x00NULL" + bytes(48) + b"\x02" + b"\xff" * 8 + b"junk",
    GREETING + b"\x00NULL" + bytes(48) + b"\x04\x19\x05READY" + b"\xff" * 300,
]  # fmt: skip


@pytest.fixture
def daemon(make_daemon) -> DaemonProcess:
    """A daemon that has been called once, so that all its threads are there."""
    made: DaemonProcess = make_daemon(ECHO).start()
    with Client(root=str(made.root)) as client:
        client.call("echo", "echo_async", text="x")
    return made


@contextmanager
def rude(daemon: DaemonProcess, kind: int, name: str) -> Iterator[zmq.Socket]:
    """A ZeroMQ socket that sends whatever it likes."""
    context = zmq.Context()
    with context.socket(kind) as made:
        made.set(zmq.LINGER, 2000)
        made.connect(f"ipc://{daemon.root}/run/{name}.sock")
        yield made
    context.term()


def size(daemon: DaemonProcess) -> tuple[int, int]:
    """Return how many threads and descriptors it has."""
    process = Path(f"/proc/{daemon.running.pid}")
    return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))


def nothing_has_grown(daemon: DaemonProcess, before: tuple[int, int]) -> None:
    """Wait until what was sent has left nothing; the daemon's own work may take a few threads and a connection more."""
    wait_for(
        lambda: all(now <= then + OWN for now, then in zip(size(daemon), before, strict=True)),
        "all to be as before", more=lambda: (before, size(daemon)),
    )  # fmt: skip


def garbage(daemon: DaemonProcess, name: str) -> dict[str, int]:
    found = daemon.call("ostler", "dump")["messages"][name]["garbage"]
    assert isinstance(found, dict)
    return found


def logged_quietly(daemon: DaemonProcess, what: str) -> None:
    """Check that there is a line for each reason, once; and that nothing looks like a defect of ours."""
    lines = [line for line in daemon.wait_log(what).splitlines() if what in line]
    reasons = [re.search(rf"{what} \((\w+)\)", line)[1] for line in lines]
    assert reasons
    assert len(reasons) == len(set(reasons)), lines
    assert "Traceback" not in daemon.log
    assert "could not be handled" not in daemon.log


def bent(dice: random.Random) -> bytes:
    data = bytearray(msgspec.msgpack.encode(REQUEST))
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(len(data))
        data[place : place + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 3))
    return bytes(data[: dice.randint(0, len(data))] if dice.random() < 0.3 else data)


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
def test_malformed_frames_of_all_kinds_are_counted_and_others_are_answered(daemon) -> None:
    dice = random.Random(7)
    before = size(daemon)
    with rude(daemon, zmq.DEALER, "rpc") as socket_, Client(root=str(daemon.root)) as honest:
        for number in range(2000):
            socket_.send(bent(dice) if number % 2 else dice.randbytes(dice.randint(0, 300)))
            if number % 200 == 0:
                socket_.send(b"")
                socket_.send(msgspec.msgpack.encode([*REQUEST[:5], {"text": "x" * 70_000}]))
                socket_.send_multipart([b"a", b"b", b"c"])
                assert honest.on(timeout=20).call("echo", "echo_async", text="well")["text"] == "well"
        found = wait_for(
            lambda: (all_ := garbage(daemon, "rpc")).get("frames") == 10 and all_, "what was sent last to be counted"
        )
    assert {"empty", "msgpack", "large", "frames"} <= found.keys()
    assert found["empty"] >= 10
    assert found["large"] >= 10
    assert sum(found.values()) > 1000
    logged_quietly(daemon, "sent an invalid request")
    nothing_has_grown(daemon, before)


@pytest.mark.failure_mode("RPC", "an oversized message")
def test_a_frame_far_above_the_limit_costs_only_its_sender_the_connection(daemon) -> None:
    with rude(daemon, zmq.DEALER, "rpc") as socket_, Client(root=str(daemon.root)) as honest:
        for _ in range(5):
            socket_.send(b"x" * 2**20)
            assert honest.on(timeout=20).call("echo", "echo_async", text="well")["text"] == "well"
    assert "Traceback" not in daemon.log


def test_garbage_on_the_events_socket_is_counted_and_events_go_on(daemon) -> None:
    dice = random.Random(8)
    with rude(daemon, zmq.XSUB, "events") as socket_, Client(root=str(daemon.root)) as honest:
        events = honest.events("")
        for number in range(500):
            socket_.send(dice.randbytes(dice.randint(0, 200)))
            if number % 100 == 0:
                socket_.send(b"\1" + b"p" * 600)  # a subscription that is too long
                socket_.send(b"\0never subscribed")
                socket_.send_multipart([b"\2", b"b", b"c"])
        found = wait_for(
            lambda: (all_ := garbage(daemon, "events")).get("large") == 5 and all_, "what was sent last to be counted"
        )
        assert found["kind"] > 300
        with Client(root=str(daemon.root)) as other:
            other.fanout("echo", "echo")
        assert next(iter(events)).topic
    logged_quietly(daemon, "sent an invalid subscription")


def test_what_does_not_speak_zeromq_is_dropped_and_others_go_on(daemon) -> None:
    dice = random.Random(9)
    before = size(daemon)
    with ExitStack() as opened, Client(root=str(daemon.root)) as honest:
        for name in ("rpc", "events"):
            for data in [*NO_ZMTP, *(dice.randbytes(dice.randint(1, 200)) for _ in range(50))]:
                raw = opened.enter_context(socket.socket(socket.AF_UNIX))
                raw.connect(str(daemon.root / "run" / f"{name}.sock"))
                try:
                    raw.sendall(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has had enough already
        assert honest.on(timeout=20).call("echo", "echo_async", text="well")["text"] == "well"
    assert "Traceback" not in daemon.log
    nothing_has_grown(daemon, before)


def test_thousands_of_connections_opened_and_dropped_leave_nothing(daemon) -> None:
    before = size(daemon)
    reset = struct.pack("ii", 1, 0)
    with Client(root=str(daemon.root)) as honest:
        for number in range(4000):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                raw.connect(str(daemon.root / "run" / ("events.sock" if number % 2 else "rpc.sock")))
            if number % 1000 == 0:
                assert honest.on(timeout=20).call("echo", "echo_async", text="well")["text"] == "well"
        assert honest.on(timeout=20).call("echo", "echo_async", text="well")["text"] == "well"
    nothing_has_grown(daemon, before)
    assert "Traceback" not in daemon.log


def test_connections_that_are_held_open_in_silence_keep_nobody_out(daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 700 if hard > 1000 else hard - 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1200)), hard))
    try:
        with ExitStack() as opened:
            for _ in range(count):
                raw = opened.enter_context(socket.socket(socket.AF_UNIX))
                raw.connect(str(daemon.root / "run" / "rpc.sock"))
            assert daemon.json("call", "echo", "echo_async", "text=well")["text"] == "well"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert Path(f"/proc/{daemon.running.pid}").exists()
