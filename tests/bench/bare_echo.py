"""The yardstick of calls: a bare pyzmq ROUTER that echoes, in a process of its own, and a bare DEALER that asks it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import zmq

PAYLOAD = b"x" * 64
"""About as long as a call with one short argument."""


def serve(address: str) -> None:
    """Echo for ever."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    print("ready", flush=True)
    while True:
        socket.send_multipart(socket.recv_multipart())


class BareEcho:
    """An echo server in a child process and one connection to it; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/bare.sock"

    def __enter__(self) -> Self:
        self._server = subprocess.Popen([sys.executable, __file__, self.address], stdout=subprocess.PIPE)
        self._server.stdout.readline()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(self.address)
        self.one_at_a_time(200)
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)
        self._server.kill()
        self._server.wait()
        self._server.stdout.close()

    def one_at_a_time(self, count: int) -> list[float]:
        """Ask so many times, one after another; return the seconds of each."""
        socket, clock, seconds = self._socket, time.perf_counter, []
        for _ in range(count):
            began = clock()
            socket.send(PAYLOAD)
            socket.recv()
            seconds.append(clock() - began)
        return seconds

    def in_flight(self, count: int, window: int = 64) -> float:
        """Ask so many times with a window of requests in flight; return the rate a second."""
        socket = self._socket
        began = time.perf_counter()
        for _ in range(window):
            socket.send(PAYLOAD)
        for _ in range(count - window):
            socket.recv()
            socket.send(PAYLOAD)
        for _ in range(window):
            socket.recv()
        return count / (time.perf_counter() - began)


if __name__ == "__main__":
    serve(sys.argv[1])
