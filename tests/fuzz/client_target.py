"""Depth three: what a server could send to our clients, and a publisher to its subscribers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from defect_watch import DefectFound, DefectWatch, same
from fuzzed_service import IDS, Item, corpus, to_client
from mutator import VALUES, Mutator, encode

from ostler.clock import FakeClock
from ostler.errors import ConnectionLost, MalformedMessage, OstlerError
from ostler.messaging.clients.client_core import ClientCore, PendingCall
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.wire.envelope import CAST, decode_to_client
from ostler.messaging.wire.request import CallRequest

Step = tuple[str, Any]
KINDS = [None, None, int, str, Item, list[Item], dict[str, int] | None]


class ClientTarget:
    """A client with calls, casts and streams under way, and a subscription; the server and publisher send anything."""

    name = "client"
    frames_a_round = 20_000

    def steps(self, seed: str, frames: int) -> Iterator[Step]:
        """Return ("call", bytes) and ("event", bytes) pairs, and ("ask", number) for another request of the client."""
        mutator = Mutator(seed, [*corpus("client", _answer), *corpus("events", _event)])
        for _ in range(frames):
            how = mutator.dice.random()
            if how < 0.3:
                yield "ask", mutator.number(1000)
            if how < 0.75:
                yield "call", mutator.any(_answer(mutator))
            else:
                yield "event", event(mutator)

    def run(self, steps: Iterator[Step]) -> int:
        """Send everything; return how many frames went by."""
        with DefectWatch() as watch:
            side = ClientSide()
            frames = 0
            for what, given in steps:
                if what == "ask":
                    side.ask(given)
                else:
                    frames += 1
                    (side.answer if what == "call" else side.event)(given)
            side.end()
        watch.check()
        return frames


class ClientSide:
    """A core and a subscription, and what is known of them from outside."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.settled: Counter[int] = Counter()
        self.asked = 0
        self.streams: list[PendingCall] = []
        self.bad = 0
        self._new_core()
        self._subscribe()

    def _new_core(self) -> None:
        self.core = ClientCore(self.clock, timeout=60.0)

    def _subscribe(self) -> None:
        self.subscription = Subscription(["shop", "slow.*.x"], last=True)
        self.events = 0

    def ask(self, number: int) -> None:
        """Make a request, unless enough are under way; each round of numbers has a core of its own."""
        if self.asked and self.asked % IDS == 0:
            self._end_core()
        me = self.asked = self.asked + 1
        ask = CallRequest(
            "shop", "echo", {}, result_type=KINDS[number % len(KINDS)], on_progress=_ignore if number % 3 else None
        )

        def settle(_value: Any, _error: Exception | None) -> None:
            self.settled[me] += 1
            if self.settled[me] > 1:
                raise DefectFound("a request was settled twice")

        if number % 5 == 0:
            pending, _ = self.core.start_stream(ask._replace(result_type=int), 100, lambda: None)
            self.settled[me] = 1  # its end is told to who reads
            self.streams.append(pending)
        elif number % 5 == 1:
            self.core.start_call(ask._replace(flags=CAST), settle)
        else:
            self.core.start_call(ask, settle)
        if number % 7 == 0:
            self._read()

    def _read(self) -> None:
        for pending in list(self.streams):
            try:
                found = self.core.pop_items(pending)[0]
            except OstlerError:
                found = None
            if found is None:
                self.streams.remove(pending)
            elif not all(type(item) is int for item in found):
                raise DefectFound(f"items of another type came through: {found!r}")

    def answer(self, data: bytes) -> None:
        """Hear from the server."""
        try:
            decode_to_client(data)
        except MalformedMessage:
            self.bad += 1
        for out in self.core.receive(data):
            same("kind of what a client answers", out[1], 2)
        self.clock.advance(0.01)
        self.core.check_deadlines(self.clock.monotonic())
        due = self.core.next_check()
        if due is not None and not due > self.clock.monotonic() - 1e9:
            raise DefectFound(f"the next look is due at {due}")
        if self.core.pending_calls and due is not None and due - self.clock.monotonic() > 241:
            raise DefectFound(f"silence of the server would be noticed in {due - self.clock.monotonic()} s")

    def event(self, data: bytes) -> None:
        """Hear from the publisher."""
        self.events += 1
        if data.startswith(b"?"):
            data = self.subscription.prefixes[-1] + b"\0" + data[1:]
        try:
            self.subscription.receive(data)
        except OstlerError:
            self._subscribe()
        if self.events >= 2000:
            self._subscribe()

    def _end_core(self) -> None:
        same("garbage that a client counted", self.core.invalid_messages, self.bad)
        self.core.fail_all(ConnectionLost("it is over"))
        same("calls without an end", self.core.pending_calls, [])
        for _ in range(1000):
            self._read()
        same("streams without an end", self.streams, [])
        self.bad = 0
        self._new_core()

    def end(self) -> None:
        """End what is under way, and check that all had an end."""
        self._end_core()
        same("calls settled", set(self.settled.values()) - {1}, set())
        same("calls settled", len(self.settled), self.asked)


def _ignore(_progress: object) -> None:
    """Take a progress report."""


def _answer(mutator: Mutator) -> list[Any]:
    return to_client(mutator, 1 + mutator.number(IDS))


def _event(mutator: Mutator) -> list[Any]:
    one = mutator.one_of
    number = one((0, 1, 2, 3, 5, 2**62))
    fields = [one(("shop", "slow", "x")), one(("here", "there")), one(("x", "y"))]
    return [1, [*fields, one(VALUES), number, one((1, 2)), 1.0, "id", "", "", one((0, 1, 2))]]


def event(mutator: Mutator) -> bytes:
    """Return what a publisher could send: events, heads, answers (they begin with `?`), and anything."""
    how = mutator.dice.random()
    if how < 0.6:
        fields = _event(mutator)
        return ".".join(fields[1][:3]).encode() + b"\0" + mutator.any(fields)
    number, kept = mutator.number(10), mutator.one_of((0, 1, 2))
    heads = [["shop", "here", number, 1, kept], ["slow", "there", number, 2, kept]]
    if how < 0.7:
        return b"shop.here.!\0" + mutator.any([21, 1, heads])
    if how < 0.9:
        answer = mutator.one_of(
            ([20, 1, _event(mutator)[1]], [21, 1, heads], [12, 1, 0, 1], [11, 1, None, [], "", "", {}])
        )
        return b"?" + mutator.any(answer)
    return mutator.bent(mutator.one_of(mutator.corpus))


__all__ = ["ClientTarget", "encode"]
