"""Items of a stream to one reader, beside a bare PUSH and PULL in two processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import zmq
from cores import Cores, warm_cores
from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import AT_LEAST, FigureRow, median

PAYLOAD = b"x" * 64


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Read streams of an `async def` and of a `def`, in turns with the yardstick, on both kinds of cores."""
    rows = _rows(folder / "streams-idle", quick, "")
    with warm_cores() as how:
        return rows + _rows(folder / "streams-warm", quick, ", warm cores", how)


def _rows(folder: Path, quick: bool, where: str, how: str = "") -> list[FigureRow]:
    from ostler import Client

    folder.mkdir()
    rounds, count = (3, 20_000) if quick else (9, 100_000)
    bare_rates: list[float] = []
    rates: dict[str, list[float]] = {"items_async": [], "items_sync": []}
    with (
        Cores().apart() as cores,
        BarePush(folder) as bare,
        DaemonUnderTest(folder / "streams", BUNDLED + ECHO.format(topic="echo")) as daemon,
        Client(root=str(daemon.root)) as client,
    ):
        cores.clients_from_now()
        for method in rates:
            read(client, method, 2000)
        for _ in range(rounds):
            bare_rates.append(bare.rate(count))
            for method, found in rates.items():
                found.append(read(client, method, count))
    yardstick = median(bare_rates)
    return [
        FigureRow(
            name=f"items of a stream, {kind}{where}", note=how, value=median(rates[method]), unit="items/s",
            baseline=yardstick,
            limit=0.5, sense=AT_LEAST, relative=True,
        )
        for kind, method in (("async method", "items_async"), ("sync method", "items_sync"))
    ]  # fmt: skip


def read(client: object, method: str, count: int) -> float:
    """Read a stream to its end; return the rate a second."""
    began, received = time.perf_counter(), 0
    for item in client.on(type=bytes).stream("echo", method, count=count):
        received += len(item) == len(PAYLOAD)
    if received != count:
        raise RuntimeError(f"{received} of {count} items came")
    return count / (time.perf_counter() - began)


class BarePush:
    """A PUSH in a child process and a PULL in this one; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/barepush.sock"

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, __file__, self.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._server.stdout.readline()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.connect(self.address)
        self.rate(2000)
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)
        self._server.kill()
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()

    def rate(self, count: int) -> float:
        """Have so many messages pushed and pull them; return the rate a second."""
        socket = self._socket
        began = time.perf_counter()
        self._server.stdin.write(f"{count}\n")
        self._server.stdin.flush()
        for _ in range(count):
            socket.recv()
        return count / (time.perf_counter() - began)


def serve(address: str) -> None:
    """Push as many messages as each line of stdin says."""
    socket = zmq.Context().socket(zmq.PUSH)
    socket.bind(address)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            socket.send(PAYLOAD)


if __name__ == "__main__":
    serve(sys.argv[1])
