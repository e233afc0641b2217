"""Our clients, both of them, against a server that sends anything over a real unix socket."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from defect_watch import DefectFound, DefectWatch, descriptors, same
from fuzzed_service import corpus, to_client
from mutator import Mutator, encode
from zmtp_target import BAD, FRAMES, STARTS

from ostler.errors import OstlerError
from ostler.messaging import AsyncClient, Client
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.unix.protocol import encode_frame, greeting
from ostler.messaging.wire.transport import TransportLimits

Step = tuple[int, bytes, int]
_SECONDS = 0.3


class HostileTarget:
    """Each connection is sent one lot of bytes and is then closed; each call ends, with a value or an error of ours."""

    name = "hostile"
    frames_a_round = 2_000

    def steps(self, seed: str, frames: int) -> Iterator[Step]:
        """Return (kind of client, what it is sent, number of frames)."""
        mutator = Mutator(seed, corpus("hostile", lambda made: to_client(made, 1 + made.number(3))))
        made = 0
        while made < frames:
            start = greeting(b"ROUTER") if mutator.dice.random() < 0.8 else mutator.bent(mutator.one_of(STARTS))
            count = 1 + mutator.number(40)
            parts = [encode_frame(mutator.any(to_client(mutator, 1 + mutator.number(3)))) for _ in range(count)]
            how = mutator.dice.random()
            if how < 0.2:
                parts[mutator.number(count)] = mutator.one_of(FRAMES)
            elif how < 0.3:
                parts[mutator.number(count)] = mutator.one_of(BAD)
            made += count
            yield mutator.number(3), start + b"".join(parts), count

    def run(self, steps: Iterator[Step]) -> int:
        """Call once on each connection; return how many frames went by."""
        before, frames = descriptors(), 0
        with DefectWatch() as watch, tempfile.TemporaryDirectory() as folder:
            address = f"ipc://{folder}/rpc.sock"
            with Hostile(Path(folder) / "rpc.sock") as server, asyncio.Runner() as runner:
                watch.on_loop(runner.get_loop())
                for kind, data, count in steps:
                    server.say = data
                    frames += count
                    transport = SocketTransport(address, address, limits=TransportLimits())
                    if kind == 0:
                        _call(transport)
                    elif kind == 1:
                        _stream(transport)
                    else:
                        runner.run(_call_on_loop(transport))
                    transport.close()
                    watch.check()
            watch.check()
        same("descriptors", descriptors(), before)
        return frames


class Hostile:
    """Takes one connection after another, says what it was told to, and hangs up. On a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.say = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="hostile", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with connected:
                try:
                    connected.recv(65_536)
                    connected.sendall(self.say)
                    connected.shutdown(socket.SHUT_WR)
                    while connected.recv(65_536):
                        pass
                except OSError:
                    pass  # the client has gone


def _call(transport: SocketTransport) -> None:
    with Client(transport=transport) as client:
        try:
            client.on(timeout=_SECONDS, on_progress=lambda _progress: None).call("shop", "echo")
        except OstlerError:
            pass


def _stream(transport: SocketTransport) -> None:
    with Client(transport=transport) as client:
        try:
            with client.on(type=int, timeout=_SECONDS).stream("shop", "count") as stream:
                for item in stream:
                    if type(item) is not int:
                        raise DefectFound(f"an item of another type came through: {item!r}")
        except OstlerError:
            pass


async def _call_on_loop(transport: SocketTransport) -> None:
    async with AsyncClient(transport=transport) as client:
        calls = [
            client.on(timeout=_SECONDS).call("shop", "echo"),
            client.on(type=str, timeout=_SECONDS).call("shop", "echo"),
        ]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, OstlerError):
                raise DefectFound(f"a call ended with {result!r}") from result


__all__ = ["HostileTarget", "encode"]
