"""The yardstick of events: a bare PUB in a process of its own, and eight SUB sockets in this one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import zmq

SUBSCRIBERS = 8
TOPIC = b"echo.bench.tick"
PAYLOAD = b"x" * 64


def serve(address: str) -> None:
    """Publish as many messages as each line of stdin says."""
    socket = zmq.Context().socket(zmq.PUB)
    socket.sndhwm = 0
    socket.bind(address)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            socket.send(TOPIC + b"\0" + PAYLOAD)


class Subscribers:
    """Eight SUB sockets on one address, drained together; a context manager."""

    def __init__(self, address: str, topic: bytes) -> None:
        self.address, self.topic = address, topic

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self.sockets = []
        for _ in range(SUBSCRIBERS):
            socket = self._context.socket(zmq.SUB)
            socket.rcvhwm = 0
            socket.subscribe(self.topic)
            socket.connect(self.address)
            self._poller.register(socket, zmq.POLLIN)
            self.sockets.append(socket)
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    def drain(self, count: int, patience: float = 5.0) -> int:
        """Receive until each subscriber has had `count` messages; return how many came in all."""
        received = 0
        while received < count * SUBSCRIBERS:
            ready = self._poller.poll(patience * 1000)
            if not ready:
                break
            for socket, _ in ready:
                try:
                    while True:
                        socket.recv(zmq.NOBLOCK)
                        received += 1
                except zmq.Again:
                    pass
        return received

    def settle(self, publish_one: Callable[[], object]) -> None:
        """Publish until every subscriber has had a message: only then its subscription has arrived for sure."""
        waiting = set(self.sockets)
        deadline = time.monotonic() + 10
        while waiting and time.monotonic() < deadline:
            publish_one()
            waiting -= {socket for socket, _ in self._poller.poll(50)}
        if waiting:
            raise RuntimeError(f"{len(waiting)} of {SUBSCRIBERS} subscribers got no event")
        while self.drain(1, patience=0.2):
            pass


class BarePubSub:
    """A PUB in a child process with its subscribers; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/barepub.sock"

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, __file__, self.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._server.stdout.readline()
        self._subscribers = Subscribers(self.address, TOPIC).__enter__()
        self._subscribers.settle(lambda: self._publish(1))
        return self

    def __exit__(self, *error: object) -> None:
        self._subscribers.__exit__()
        self._server.kill()
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()

    def _publish(self, count: int) -> None:
        self._server.stdin.write(f"{count}\n")
        self._server.stdin.flush()

    def deliveries(self, count: int) -> float:
        """Publish so many messages; return deliveries a second, over all subscribers."""
        began = time.perf_counter()
        self._publish(count)
        received = self._subscribers.drain(count)
        return received / (time.perf_counter() - began)


if __name__ == "__main__":
    serve(sys.argv[1])
