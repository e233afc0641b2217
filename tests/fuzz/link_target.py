"""All of it over real unix sockets: connections that send anything, in any pieces, to servers of calls and events."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from client_target import event
from defect_watch import DefectFound, DefectWatch, descriptors, same
from fuzzed_service import corpus, to_server
from mutator import Mutator, encode
from server_target import LIMIT, ServerUnderFuzz
from zmtp_target import BAD, FRAMES, STARTS

from ostler.errors import MessagingError
from ostler.messaging.unix.async_link import AsyncUnixLink
from ostler.messaging.unix.protocol import encode_frame, greeting
from ostler.messaging.unix.publisher import UnixEventLink
from ostler.messaging.unix.server import UnixServerLink
from ostler.messaging.wire.transport import Data, TransportLimits
from support.links import RecordingHandler

# private: _groups: after all have gone nothing may be left anywhere

Step = tuple[int, int, bytes, int]
CONNECTIONS = 12
_REASONS = {
    "empty", "large", "msgpack", "shape", "version", "kind", "duplicate", "frames", "protocol", "handshake", "many",
}  # fmt: skip


class LinkTarget:
    """Twelve connections at a time that are up to no good, and an honest one."""

    name = "link"
    frames_a_round = 5_000

    def steps(self, seed: str, frames: int) -> Iterator[Step]:
        """Return (connection, server, bytes, number of frames): server 0 is for calls, 1 for events.

        Empty bytes stand for the end of a connection.
        """
        mutator = Mutator(seed, corpus("link", to_server))
        begun: set[int] = set()
        made = 0
        while made < frames:
            number = mutator.number(CONNECTIONS)
            server = number % 3 // 2
            parts = []
            if number not in begun:
                begun.add(number)
                parts.append(greeting(b"SUB" if server else b"DEALER"))
                if mutator.dice.random() < 0.15:
                    parts = [mutator.bent(mutator.one_of(STARTS))]
            count = 1 + mutator.number(30)
            for _ in range(count):
                body = _subscription(mutator) if server else mutator.any(to_server(mutator))
                parts.append(encode_frame(body) if mutator.dice.random() < 0.97 else mutator.one_of(FRAMES))
            how = mutator.dice.random()
            if how < 0.03:
                parts.append(mutator.one_of(BAD))
            elif how < 0.05:
                parts.append(mutator.dice.randbytes(50))
            made += count
            for piece in mutator.pieces(b"".join(parts)) if how < 0.2 else [b"".join(parts)]:
                yield number, server, piece, 0
            yield number, server, b"", count
            if how > 0.05:
                continue
            begun.discard(number)
            yield number, server, b"", -1

    def run(self, steps: Iterator[Step]) -> int:
        """Send everything; return how many frames went by."""
        return asyncio.run(self._main(steps))

    async def _main(self, steps: Iterator[Step]) -> int:
        before = descriptors()
        with DefectWatch() as watch, tempfile.TemporaryDirectory() as folder:
            side = LinkSide(watch, Path(folder))
            try:
                await side.send(steps)
                await side.end()
            finally:
                await side.close()
            watch.check()
        same("descriptors", descriptors(), before)
        return side.frames


class LinkSide:
    """Both servers on real sockets, and what connects to them."""

    def __init__(self, watch: DefectWatch, folder: Path) -> None:
        self._addresses = [f"ipc://{folder}/{name}.sock" for name in ("rpc", "events")]
        limits = TransportLimits(LIMIT, 100)
        self.server = UnixServerLink(self._addresses[0], limits)
        self.world = ServerUnderFuzz(watch, self.server)
        self.events = UnixEventLink(self._addresses[1], limits)
        self.event_handler = RecordingHandler(answer=lambda peer, question: [b"an answer"])
        self.events.start(self.event_handler)
        self.frames = 0
        self._open: dict[int, socket.socket] = {}
        self._got: list[bytes] = []
        self._honest = AsyncUnixLink(self._addresses[0], TransportLimits(), self._take, self._on_lost)
        self._turns = 0

    def _take(self, data: Data) -> None:
        self._got.append(bytes(data))

    def _on_lost(self, error: MessagingError) -> None:
        raise DefectFound(f"the honest client lost its connection: {error}")

    async def send(self, steps: Iterator[Step]) -> None:
        """Send everything, and calls of the honest client in between."""
        for number, server, data, frames in steps:
            self.frames += max(0, frames)
            if frames < 0:
                self._drop(number)
            elif data:
                self._write(number, server, data)
            if not data:
                await asyncio.sleep(0)
                self._turns += 1
                if self._turns % 20 == 0:
                    self.events.publish(b"shop.here.x\0event")
                    await self._call()
                self.world.watch.check()

    def _write(self, number: int, server: int, data: bytes) -> None:
        made = self._open.get(number)
        if made is None:
            made = self._open[number] = socket.socket(socket.AF_UNIX)
            made.connect(self._addresses[server].removeprefix("ipc://"))
            made.setblocking(False)
        try:
            made.send(data)
            if number % 4:  # every fourth does not read
                made.recv(65_536)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(number)  # it was thrown out

    def _drop(self, number: int) -> None:
        made = self._open.pop(number, None)
        if made is not None:
            made.close()

    async def _call(self) -> None:
        text = f"call {self._turns}"
        self._honest.send(encode([1, 1, self._turns, "shop", "echo", {"text": text}]))
        for _ in range(200):
            await asyncio.sleep(0)
            if self._got:
                break
        same("an honest answer", self._got, [encode([10, 1, self._turns, text])])
        self._got.clear()

    async def end(self) -> None:
        """Close what is open, and see that nothing is left of it."""
        for number in list(self._open):
            self._drop(number)
        for _ in range(500):
            if len(self.server.listener.clients) == 1 and not self.events.listener.clients:
                break
            await asyncio.sleep(0.002)
        same("clients of the server of calls", len(self.server.listener.clients), 1)
        same("clients of the server of events", len(self.events.listener.clients), 0)
        same("groups of subscribers", self.events._groups, {})
        await self.world.settle()
        await self._call()
        same(
            "reasons that nobody knows",
            (set(self.world.server.invalid_messages) | {*self.event_handler.invalid}) - _REASONS,
            set(),
        )

    async def close(self) -> None:
        """Close everything."""
        for number in list(self._open):
            self._drop(number)
        self._honest.close()
        self.events.close()
        await self.world.close()


def _subscription(mutator: Mutator) -> bytes:
    how = mutator.dice.random()
    if how < 0.7:
        prefix = mutator.one_of(
            (b"shop", b"shop.", b"", b"!0123?l\nshop", b"!", b"x" * 600, bytes((mutator.number(256),)))
        )
        return mutator.one_of((b"\1", b"\1", b"\0")) + bytes(prefix)
    return event(mutator)


__all__ = ["LinkTarget"]
