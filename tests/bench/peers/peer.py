"""A peer: what it is called and needs, and how its server and its client run, each in a process of its own.

The module of a peer imports its libraries only inside functions: the runner reads the description in an interpreter
that does not have them. Run as a script it is one end: `peer_x.py serve|ask NAME FOLDER ADDRESS`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT = "x" * 64
SUBSCRIBERS = 8
WINDOW = 64
BURST = 2000
_PATIENCE = 3.0


@dataclass(frozen=True, kw_only=True)
class MeasuredPeer:
    """What the runner has to know of a peer.

    Args:
        name: As it stands in the table.
        distribution: The Python distribution whose version is shown.
        serve: Runs the server until `wait_for_the_end` returns; gets the folder and the address.
        ask: Runs the client; gets the folder and the address.
        program: What has to run before: rabbitmq, nats-server or dbus-daemon; none for a peer without a broker.
        settings: How it is set up: transport, acknowledgement, persistence.
        events: How many events are published in a burst at most; 0 for a peer without events for many subscribers.
        own: Whether it is Ostler, which runs in the interpreter of the runner.
    """

    name: str
    distribution: str
    serve: Callable[[Path, str], None]
    ask: Callable[[Path, str], None]
    program: str = ""
    settings: str = ""
    events: int = 0
    own: bool = False


class Tally:
    """Counts what the subscribers get, and when the last of it came; any thread may count."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def count(self, *_: object) -> None:
        """One delivery; may stand where a subscriber's callback is asked for."""
        self.stamps.append(time.perf_counter())

    async def acount(self, *_: object) -> None:
        """One delivery, to a callback that has to be a coroutine."""
        self.count()

    def rate(self, began: float, count: int) -> dict[str, float]:
        """Return deliveries a second and how many were lost."""
        stamps, self.stamps = self.stamps, []
        if not stamps:
            raise RuntimeError("no event arrived")
        return {"rate": len(stamps) / (max(stamps) - began), "lost": count * SUBSCRIBERS - len(stamps)}

    def deliveries(self, publish: Callable[[int], object], count: int) -> dict[str, float]:
        """Have so many events published and wait for them."""
        began = time.perf_counter()
        publish(count)
        until, had = time.perf_counter() + _PATIENCE, 0
        while len(self.stamps) < count * SUBSCRIBERS and time.perf_counter() < until:
            time.sleep(0.002)
            if len(self.stamps) > had:
                until, had = time.perf_counter() + _PATIENCE, len(self.stamps)
        return self.rate(began, count)

    async def adeliveries(self, publish: Callable[[int], Awaitable[object]], count: int) -> dict[str, float]:
        """The same in a loop."""
        began = time.perf_counter()
        await publish(count)
        until, had = time.perf_counter() + _PATIENCE, 0
        while len(self.stamps) < count * SUBSCRIBERS and time.perf_counter() < until:
            await asyncio.sleep(0.002)
            if len(self.stamps) > had:
                until, had = time.perf_counter() + _PATIENCE, len(self.stamps)
        return self.rate(began, count)


def ready() -> None:
    """Say that the server can be asked."""
    print("ready", flush=True)


def wait_for_the_end() -> None:
    """Wait until the runner closes stdin."""
    sys.stdin.read()


async def await_the_end() -> None:
    """Wait in a loop until the runner closes stdin."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def each(call: Callable[[], object], count: int) -> list[float]:
    """Call so many times, one after another; return the seconds of each."""
    clock, seconds = time.perf_counter, []
    for _ in range(count):
        began = clock()
        call()
        seconds.append(clock() - began)
    return seconds


async def aeach(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """The same with a coroutine function."""
    clock, seconds = time.perf_counter, []
    for _ in range(count):
        began = clock()
        await call()
        seconds.append(clock() - began)
    return seconds


async def agather(call: Callable[[], Awaitable[object]], count: int) -> float:
    """Call with 64 callers at once; return the rate a second."""
    times = max(1, count // WINDOW)

    async def caller() -> None:
        for _ in range(times):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(WINDOW)))
    return times * WINDOW / (time.perf_counter() - began)


def threads(calls: Iterable[Callable[[], object]], count: int, pool: Any) -> float:
    """Call from a pool of threads, one for each of `calls`; return the rate a second."""
    callers = list(calls)
    times = max(1, count // len(callers))

    def caller(call: Callable[[], object]) -> None:
        for _ in range(times):
            call()

    began = time.perf_counter()
    list(pool.map(caller, callers))
    return times * len(callers) / (time.perf_counter() - began)


def converse(verbs: dict[str, Callable[[int], Any]]) -> None:
    """Do what the lines of stdin ask for, `VERB COUNT`; answer each with a line of JSON."""
    ready()
    for line in sys.stdin:
        verb, count = line.split()
        print(json.dumps(verbs[verb](int(count))), flush=True)


async def aconverse(verbs: dict[str, Callable[[int], Any]]) -> None:
    """The same in a loop; a verb may be a coroutine function."""
    ready()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, count = line.split()
        answer = verbs[verb](int(count))
        print(json.dumps(await answer if inspect.isawaitable(answer) else answer), flush=True)


def main(peers: Iterable[MeasuredPeer]) -> None:
    """Be one end of one of these peers."""
    end, name, folder, address = sys.argv[1:]
    # So it is told that the runner has gone; the context managers of a server are to end what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peer = next(peer for peer in peers if peer.name == name)
    (peer.serve if end == "serve" else peer.ask)(Path(folder), address)
