"""Depth two: frames into the server of calls, whatever is under way there, with honest clients in between."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from defect_watch import DefectFound, DefectWatch, same
from fuzzed_service import BlockingService, FuzzedService, corpus, to_server
from mutator import Mutator, encode

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import MalformedMessage
from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer
from ostler.messaging.rpc.dispatcher import DispatcherLimits
from ostler.messaging.rpc.rpc_server import DedupLimits, ServerLimits
from ostler.messaging.wire.envelope import (
    Accepted,
    Failure,
    Reply,
    Request,
    decode_to_client,
    decode_to_server,
    encode_message,
    peek_header,
)
from ostler.types import Peer

# private: _by_account, _calls, _control_count, _in_flight: after each round nothing may be left anywhere
# private: _in_threads, _keepalives_due, _open: the same

LIMIT = 4096
CLIENTS = 8
_HONEST = "honest"
_EVERY = 200
_BATCH = 40
_QUIET_EVERY = 10_000
PEERS = [Peer(0, 0, 1, "uid 0"), Peer(1000, 1000, 2, "uid 1000"), Peer(4000, 4000, 3, "uid 4000")]
"""An admin, a viewer and a stranger."""
Step = tuple[int, bytes]


class FakeServerLink:
    """The server's link; keeps the books of who was asked what and got which answers."""

    address = "fuzz"
    can_send_from_thread = True
    is_core_free = True

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: Counter[tuple[object, int]] = Counter()
        self.honest: dict[int, bytes] = {}
        self.gone: set[object] = set()
        self.answered = 0
        self.wrong = ""

    def start(self, handler: Any) -> None:
        """See `ServerLink.start`."""
        self.receive = handler.on_message

    def send(self, client: object, data: bytes) -> bool:
        """See `ServerLink.send`."""
        with self.lock:
            return self.take(client, data)

    def asks(self, client: object, number: int) -> None:
        """Note what is to be answered."""
        with self.lock:
            self.asked[client, number] += 1

    def take(self, client: object, data: bytes) -> bool:
        """Note what is sent; with the lock."""
        if client in self.gone:
            return False
        answer = decode_to_client(data)
        if client == _HONEST:
            if type(answer) is Reply:
                self.honest[answer.id] = bytes(answer.result)
            elif type(answer) in (Failure, Accepted):
                self.wrong = f"an honest client was answered with {answer}"
        elif type(answer) in (Reply, Failure, Accepted):
            place = (client, answer.id)
            self.answered += 1
            self.asked[place] -= 1
            if self.asked[place] < 0:
                self.wrong = f"{place} had more answers than requests, at last {answer}"
        return True

    def is_congested(self, client: object) -> bool:
        """See `ServerLink.congested`."""
        return False

    def memory_account(self, client: object) -> None:
        """See `ServerLink.memory`."""

    def report_invalid(self, client: object) -> None:
        """See `ServerLink.garbage`."""

    def send_from_thread(self, client: Any, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`."""
        with self.lock:
            return client not in self.gone and claim() and self.take(client, data)

    def cork(self) -> None:
        """See `ServerLink.hold`."""

    def uncork(self) -> None:
        """See `ServerLink.let_go`."""

    def close(self) -> None:
        """See `ServerLink.close`."""


class ServerTarget:
    """A server whose clients are eight that send anything and one that is honest."""

    name = "server"
    frames_a_round = 20_000

    def steps(self, seed: str, frames: int) -> Iterator[Step]:
        """Return (client, frame) pairs; a client of -1 - n stands for the end of client n's connection."""
        mutator = Mutator(seed, corpus("server", to_server))
        leaves = mutator.dice.random() < 0.5
        for number in range(frames):
            client = mutator.number(CLIENTS)
            if leaves and number % 500 == 499:
                yield -1 - client, b""
            data = mutator.any(to_server(mutator))
            yield client, data if number % 300 else data + bytes(LIMIT)

    def run(self, steps: Iterator[Step]) -> int:
        """Send everything; return how many frames went by."""
        return asyncio.run(self._main(steps))

    async def _main(self, steps: Iterator[Step]) -> int:
        with DefectWatch() as watch:
            world = ServerUnderFuzz(watch)
            try:
                await world.send(steps)
                await world.settle()
                world.check_books()
            finally:
                await world.close()
            watch.check()
        return world.frames


class ServerUnderFuzz:
    """A dispatcher and a server, and what is known of them from outside."""

    def __init__(self, watch: DefectWatch, wire: Any = None) -> None:
        watch.on_loop(asyncio.get_running_loop())
        self.watch = watch
        self.wire = wire or FakeServerLink()
        self.inbox = LoopQueue(asyncio.get_running_loop())
        self.clock = SystemClock()
        limits = DispatcherLimits(max_streams=60, max_streams_per_peer=20)
        self.dispatcher = Dispatcher(Access(viewer=["1000"]), self.clock, self.inbox, host="here", limits=limits)
        self.server = RpcServer(
            self.wire,
            self.dispatcher,
            self.inbox,
            max_message_size=LIMIT,
            limits=ServerLimits(
                max_in_flight_per_peer=40,
                dedup=DedupLimits(max_results=50, max_bytes=20_000, orphan_grace=0.05),
            ),
        )
        self.slow = BlockingService()
        self.pools = [WorkerPool("shop", 2), WorkerPool("slow", 2, queue_limit=50)]
        self.dispatcher.registry.add_endpoint(Endpoint("shop", "here", FuzzedService(), self.pools[0]))
        self.dispatcher.registry.add_endpoint(Endpoint("slow", "here", self.slow, self.pools[1]))
        self.dispatcher.registry.endpoints_by_topic["slow"].max_in_flight = 150
        self.server.start()
        self.names: list[int] = list(range(CLIENTS))
        self.frames = self.fine = self.controls = self.readable = 0
        self._turns = 0

    async def send(self, steps: Iterator[Step]) -> None:
        """Send everything, many frames in each turn of the loop, and calls of an honest client in between."""
        loop = asyncio.get_running_loop()
        more = True
        while more:
            done = loop.create_future()
            loop.call_soon(self._some, steps, done)
            more = await done
            self._turns += 1
            if self._turns % (_EVERY // _BATCH) == 0:
                await self._send_honest_requests()
            if self._turns % (_QUIET_EVERY // _BATCH) == 0:
                await self.settle()
                self.slow.block_again()
            if self.wire.wrong:
                raise DefectFound(self.wire.wrong)
            self.watch.check()

    def _some(self, steps: Iterator[Step], done: asyncio.Future[bool]) -> None:
        """Send a few frames as a transport does: not from within a task."""
        try:
            for _ in range(_BATCH):
                step = next(steps, None)
                if step is None:
                    done.set_result(False)
                    return
                self._one(*step)
            self.dispatcher.spin_for_threads()
        except Exception as error:
            done.set_exception(error)
            return
        done.set_result(True)

    def _one(self, client: int, data: bytes) -> None:
        if client < 0:
            gone = self.names[-1 - client]
            self.wire.gone.add(gone)
            self.server.on_client_gone(gone)
            self.names[-1 - client] += CLIENTS
            return
        name = self.names[client]
        self.frames += 1
        self._count(name, data)
        self.server.on_message(name, data, PEERS[client % 3])

    def _count(self, name: int, data: bytes) -> None:
        """Note what is to be answered."""
        try:
            if len(data) > LIMIT:
                raise MalformedMessage("too large")
            message = decode_to_server(data)
        except MalformedMessage:
            head = peek_header(data)
            if len(head) > 2:
                self.readable += 1
                self.wire.asks(name, head[2])
            return
        self.fine += 1
        if type(message) is Request:
            self.wire.asks(name, message.id)
        else:
            self.controls += 1

    async def _send_honest_requests(self) -> None:
        """Make a call that is answered at once, and one in the pool that is answered soon."""
        number, text, loop = self.frames, f"call {self.frames}", asyncio.get_running_loop()
        for method in ("echo", "quick"):
            if method == "quick" and self._turns % 50:
                continue
            call = encode([1, 1, number, "shop", method, {"text": text}])
            loop.call_soon(self.server.on_message, _HONEST, call, PEERS[1])
            for _ in range(3 if method == "echo" else 2000):
                await asyncio.sleep(0 if method == "echo" else 0.001)
                if number in self.wire.honest:
                    break
            else:
                raise DefectFound(f"an honest call of {method} had no answer")
            same("an honest answer", self.wire.honest.pop(number), encode(text))

    async def settle(self) -> None:
        """Let go what is held, give streams their credit, and see that all has ended."""
        self.slow.release_all()
        for _ in range(4000):
            if (
                not self.dispatcher._in_flight
                and not self.server._calls
                and not any(p.in_flight_numbers() for p in self.pools)
            ):
                break
            for client, calls in list(self.server._calls.items()):
                for number, call in list(calls.items()):
                    if self.dispatcher.streams is not None and call in self.dispatcher.streams._open:
                        self.server.on_message(client, encode([3, 1, number, 1000]), PEERS[0])
            await asyncio.sleep(0.002)
        self._check_empty()

    def _check_empty(self) -> None:
        dispatcher, server = self.dispatcher, self.server
        same("requests in progress", [call.full_name for call in dispatcher._in_flight], [])
        same("requests that clients wait for", server._calls, {})
        same("beats that are due", server._keepalives_due, {})
        same("reserved", (dispatcher._in_flight._control_count, dispatcher._in_threads), (0, 0))
        for endpoint in dispatcher.endpoints():
            same(f"in flight at {endpoint.topic}", endpoint.in_flight, 0)
            same("in flight of methods", {m.stats.in_flight for m in endpoint.methods.values()}, {0})
        if dispatcher.streams is not None:
            same("streams", (dispatcher.streams.open_count, dict(dispatcher.streams._by_account)), (0, {}))
        if server.dedup_cache is not None:
            stats = server.dedup_cache.stats()
            same("repeats under way", stats["under_way"], 0)
            if stats["ids"] > 500 or stats["answers"] > 50 or stats["bytes"] > 20_000:
                raise DefectFound(f"more is kept for repeats than may be: {stats}")
        threads = sum(pool.thread_count for pool in self.pools)
        if threads > 4:
            raise DefectFound(f"{threads} threads")

    def check_books(self) -> None:
        """Check that everything was counted, and answered as often as it had to be."""
        garbage, duplicates = self.server.invalid_messages, self.server.dedup_cache
        bad = sum(garbage.values()) - garbage["duplicate"]
        same("garbage counted", bad, self.frames - self.fine)
        stray = sum(self.server.late_messages.values())
        if stray > self.controls + self.frames:
            raise DefectFound(f"{stray} strays of {self.controls}")
        unknown = set(garbage) - {"empty", "large", "msgpack", "shape", "version", "kind", "duplicate"}
        same("reasons that nobody knows", unknown, set())
        if not self.wire.gone:
            joined = duplicates.repeats_attached if duplicates is not None else 0
            same("requests without an answer", sum(self.wire.asked.values()), garbage["duplicate"] + joined)

    async def close(self) -> None:
        """End everything."""
        self.slow.release_all()
        self.dispatcher.close()
        self.server.close()
        for pool in self.pools:
            pool.close()
            same("threads that go on", await asyncio.to_thread(pool.join, 5), [])
        for _ in range(5):
            await asyncio.sleep(0)


__all__ = ["ServerTarget", "encode_message"]
