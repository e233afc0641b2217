"""A client as somebody would write it from `docs/wire.md` alone: ZeroMQ and msgpack, and nothing of Ostler."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import zmq
from msgspec.msgpack import decode, encode

VERSION = 1
REQUEST, CANCEL, CREDIT = 1, 2, 3
REPLY, FAILURE, ACCEPTED, PROGRESS, BEAT, ITEMS = 10, 11, 12, 13, 14, 15
LAST_EVENT, HEADS = 20, 21
LENIENT, CAST, FANOUT, WANTS_PROGRESS, STREAM, RETRY = 1, 2, 4, 8, 16, 32
RECEIVE_TIMEOUT_MS = 10_000


class ForeignCallError(Exception):
    """A failure: names, message, hint, facts."""

    def __init__(self, names: list[str], message: str, hint: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.names, self.message, self.hint, self.facts = names, message, hint, facts


class ForeignCaller:
    """The calls of one connection, one at a time."""

    def __init__(self, path: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(path)
        self.beats: list[list[Any]] = []
        self.progress: list[list[Any]] = []
        self._numbers = itertools.count()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, *fields: Any) -> None:
        """Send a message: one frame, one array."""
        self.socket.send(encode(fields))

    def receive(self) -> list[Any]:
        """Return the next message."""
        assert self.socket.poll(RECEIVE_TIMEOUT_MS), "no answer"
        frames = self.socket.recv_multipart()
        assert len(frames) == 1
        message = decode(frames[0])
        assert message[1] == VERSION
        return message

    def send_request(
        self, topic: str, method: str, arguments: dict[str, Any] | None = None, *, timeout: float | None = 10.0,
        request_id: str = "", flags: int = 0, host: str = "", version: str = "", trace: str = "", credit: int = 0,
    ) -> int:  # fmt: skip
        """Send a request; return its number."""
        number = next(self._numbers)
        self.send(
            REQUEST, VERSION, number, topic, method, arguments or {}, timeout, request_id, flags, host, version, trace,
            credit,
        )  # fmt: skip
        return number

    def receive_reply(self, number: int) -> list[Any]:
        """Return the answer to a request; beats and progress are put aside."""
        while True:
            kind, _, *fields = self.receive()
            if kind == BEAT:
                self.beats.append(fields)
            elif kind == PROGRESS:
                self.progress.append(fields)
            elif kind == FAILURE:
                assert fields[0] in (number, None)
                raise ForeignCallError(*fields[1:])
            elif fields[0] == number:
                return [kind, *fields]

    def call(self, topic: str, method: str, arguments: dict[str, Any] | None = None, **more: Any) -> Any:
        """Call a method; return its result."""
        kind, _, result = self.receive_reply(self.send_request(topic, method, arguments, **more))
        assert kind == REPLY
        return result

    def cast(self, topic: str, method: str, arguments: dict[str, Any] | None = None, flags: int = 0) -> int:
        """Cast; return how many accepted it."""
        kind, _, reached = self.receive_reply(self.send_request(topic, method, arguments, flags=CAST | flags))
        assert kind == ACCEPTED
        return int(reached)

    def stream(
        self, topic: str, method: str, arguments: dict[str, Any] | None = None, credit: int = 8
    ) -> Iterator[tuple[int, Any]]:
        """Yield the items of a stream with their numbers; give credit when half of it has been read."""
        number = self.send_request(topic, method, arguments, timeout=None, flags=STREAM, credit=credit)
        read = 0
        while (answer := self.receive_reply(number))[0] == ITEMS:
            _, _, first, items = answer
            for place, item in enumerate(items, first):
                yield place, item
                read += 1
                if read * 2 >= credit:
                    self.send(CREDIT, VERSION, number, read)
                    read = 0
        assert answer == [REPLY, number, None]


class ForeignSubscriber:
    """Events of some prefixes."""

    def __init__(self, path: str, *prefixes: str, last: bool = False) -> None:
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(path)
        for prefix in prefixes:
            self.socket.subscribe(prefix.encode())
        self.question = "!" + os.urandom(8).hex() + "?" + ("l" if last else "")
        for prefix in prefixes:
            self.question += "\n" + prefix
        self.socket.subscribe(self.question.encode())
        self.last: list[list[Any]] = []
        self.heads: dict[tuple[str, str], list[Any]] = {}
        while True:
            key, message = self.receive()
            if key != self.question:
                continue
            kind, version, *fields = message
            assert version == VERSION
            if kind == LAST_EVENT:
                self.last.append(fields[0])
            elif kind == HEADS:
                self.take_heads(fields[0])
            elif kind == FAILURE:
                raise ForeignCallError(*fields[1:])
            else:
                assert kind == ACCEPTED
                return

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def receive(self) -> tuple[str, list[Any]]:
        """Return the key and the message of the next frame."""
        assert self.socket.poll(RECEIVE_TIMEOUT_MS), "no event"
        key, _, body = self.socket.recv().partition(b"\0")
        message = decode(body)
        return key.decode(), message

    def take_heads(self, heads: list[list[Any]]) -> None:
        """Take note of where topics are."""
        for topic, host, number, epoch, kept in heads:
            self.heads[topic, host] = [number, epoch, kept]

    def event(self) -> dict[str, Any]:
        """Return the next event; take note of the heads before it."""
        while True:
            key, message = self.receive()
            if key.endswith(".!"):
                kind, version, heads = message
                assert (kind, version) == (HEADS, VERSION)
                self.take_heads(heads)
                continue
            version, event = message
            assert version == VERSION
            return dict(zip(EVENT, event, strict=False))

    def head(self) -> list[Any]:
        """Return the next head that comes by itself."""
        while True:
            key, message = self.receive()
            if key.endswith(".!"):
                return list(message[2][0])


EVENT = ("topic", "host", "name", "payload", "number", "epoch", "at", "request_id", "trace", "priority", "kept")
