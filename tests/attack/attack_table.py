"""The attacks: what each sends, over which socket, and who sends it.

What is sent is made in the attacker's process, by functions; this table costs nothing to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import hostile_wire as wire

NOBODY, VIEWER, VIEWERS = "nobody", "viewer", "viewers"
"""Who attacks: a uid without a role, one with the role viewer, three of these at once."""
EVERYONE, WITH_ROLE = (NOBODY, VIEWER, VIEWERS), (VIEWER, VIEWERS)
MIB = 1024 * 1024
_NO_BYTES: Sequence[bytes] = ()
_BLOB = 64 * 1024
_TARGET = "target"
_PEAK = 400


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    Attributes:
        name: What it is called.
        again: Makes what each connection sends again and again; each item is sent whole.
        opening: Makes what a connection sends once, after its greeting.
        by: Who does it.
        kind: What the attacker's sockets say they are; SUB is for the socket of events.
        hello: Whether it greets at all.
        reads: Whether it reads what it gets.
        connections: How many it wants to have; it takes what it gets, and replaces those that are cut.
        leaves: Whether each connection goes as soon as its opening is sent.
        lasts: Seconds after which the attacker itself leaves; None for as long as the measurement.
        events: Events each second that are published meanwhile, and bytes of each.
        peak: MiB that the daemon may grow by.
        service_busy: Whether the service's own methods may be refused meanwhile (its limit of requests is used up).
    """

    name: str
    again: Callable[[], Sequence[bytes]] = lambda: _NO_BYTES
    opening: Callable[[], Sequence[bytes]] = lambda: _NO_BYTES
    by: tuple[str, ...] = WITH_ROLE
    kind: bytes = b"DEALER"
    hello: bool = True
    reads: bool = True
    connections: int = 480
    leaves: bool = False
    lasts: float | None = None
    events: tuple[int, int] = (0, 0)
    peak: int = _PEAK
    service_busy: bool = False


def _filled(unit: bytes) -> Callable[[], Sequence[bytes]]:
    """Return what makes a piece of 64 KiB of one message."""
    return lambda: [unit * max(1, _BLOB // len(unit))]


def _numbered(make: Callable[[int], bytes], count: int = 4000) -> Callable[[], Sequence[bytes]]:
    """Return what makes pieces of messages with numbers of their own."""
    return lambda: [b"".join(map(make, range(first, first + 200))) for first in range(0, count, 200)]


def _once(make: Callable[[int], bytes], count: int) -> Callable[[], Sequence[bytes]]:
    """Return what makes one piece of so many numbered messages."""
    return lambda: [b"".join(map(make, range(count)))]


def _streams(method: str, size: int, count: int = 90, repeats: int = 8) -> Callable[[], Sequence[bytes]]:
    """Return what opens streams with more credit than anybody could use, and gives them more."""

    def opening() -> Sequence[bytes]:
        opened = b"".join(
            wire.request(n, _TARGET, method, {"size": size}, flags=wire.STREAM, credit=2**31) for n in range(count)
        )
        return [opened, b"".join(wire.credit(n, 2**31) for n in range(count)) * repeats]

    return opening


def _relay(number: int, arguments: object) -> bytes:
    relayed = {"on_host": "attacked", "topic": _TARGET, "method": "echo", "arguments": {"text": arguments}}
    return wire.request(number, "ostler", "relay", relayed)


def _cancelled(number: int) -> bytes:
    return wire.request(number, _TARGET, "asleep", {"seconds": 60.0}) + wire.cancel(number)


_PING = wire.command(b"PING", b"\0\0ctx")
_ECHO = wire.request(0, "ostler", "echo")

_PROTOCOL = (
    Attack("requests", _filled(_ECHO), by=EVERYONE),
    Attack("requests, answers not read", _filled(_ECHO), by=EVERYONE, reads=False),
    Attack("one-byte frames", _filled(wire.frame(b"x")), by=EVERYONE),
    Attack("empty frames", _filled(wire.frame(b"")), by=EVERYONE),
    Attack("PING", _filled(_PING), by=EVERYONE),
    Attack("PING, not read", _filled(_PING), by=WITH_ROLE, reads=False),
    Attack("messages of two frames", _filled(wire.frame(b"x", more=True) + wire.frame(b"y"))),
    Attack("a message of endless frames", _filled(wire.frame(b"x", more=True))),
    Attack("half greetings", opening=lambda: [wire.GREETING[:11]], by=EVERYONE, hello=False),
    Attack("connect and leave", opening=lambda: [_ECHO], by=EVERYONE, leaves=True, connections=64),
    Attack("burst of 0.1 s: one-byte frames", _filled(wire.frame(b"x")), by=EVERYONE, lasts=0.1, reads=False),
    Attack("burst of 0.1 s: requests", _filled(_ECHO), lasts=0.1, reads=False),
)

_CALLS = (
    Attack(
        "describe with schemas",
        _numbered(lambda n: wire.request(n, "ostler", "describe", {"topic": "ostler", "schema": True})),
    ),
    Attack("status", _numbered(lambda n: wire.request(n, "ostler", "status"))),
    Attack("host_report", _numbered(lambda n: wire.request(n, "ostler", "host_report"))),
    Attack(
        "watch_host, not read",
        opening=_once(lambda n: wire.request(n, "ostler", "watch_host", flags=wire.STREAM, credit=2**31), 200),
        connections=20,
        reads=False,
    ),
    Attack("service_list", _numbered(lambda n: wire.request(n, "ostler", "service_list"))),
    Attack("traffic", _numbered(lambda n: wire.request(n, "ostler", "traffic"))),
    Attack("def calls", _numbered(lambda n: wire.request(n, _TARGET, "echo")), service_busy=True),
    Attack("async calls", _numbered(lambda n: wire.request(n, _TARGET, "echo_async")), service_busy=True),
    Attack("casts", _numbered(lambda n: wire.request(n, _TARGET, "echo", flags=wire.CAST)), service_busy=True),
    Attack(
        "fanouts",
        _numbered(lambda n: wire.request(n, _TARGET, "echo", flags=wire.CAST | wire.FANOUT)),
        service_busy=True,
    ),
    Attack(
        "retries with distinct ids",
        _numbered(
            lambda n: wire.request(n, _TARGET, "echo_async", {"text": "x" * 500}, request_id=f"r{n}", flags=wire.RETRY)
        ),
        service_busy=True,
    ),
    Attack("methods that are not", _numbered(lambda n: wire.request(n, "x" * 200, "y" * 200))),
    Attack("cancel storm", _numbered(_cancelled), service_busy=True),
    Attack(
        "staggered deadlines",
        opening=_once(lambda n: wire.request(n, _TARGET, "asleep", timeout=0.5 + n / 1000), 2000),
        connections=5,
        service_busy=True,
    ),
    Attack("long waits", opening=_once(lambda n: wire.request(n, _TARGET, "asleep"), 2000), service_busy=True),
    Attack(
        "unread answers of 8 MB",
        opening=_once(lambda n: wire.request(n, _TARGET, "big", {"size": 8_000_000}), 40),
        connections=60,
        reads=False,
        service_busy=True,
    ),
    Attack(
        "read answers of 8 MB",
        _numbered(lambda n: wire.request(n, _TARGET, "big", {"size": 8_000_000}), 200),
        connections=20,
        service_busy=True,
    ),
)

_MESSAGES = (
    Attack(
        "wide messages of 4 MiB",
        lambda: [wire.request(0, "ostler", "echo", {"text": wire.wide(4 * MIB)})],
        connections=20,
    ),
    Attack(
        "wide messages of 15 MiB",
        lambda: [wire.request(0, "ostler", "echo", {"text": wire.wide(15 * MIB)})],
        connections=20,
    ),
    Attack(
        "wide messages below the limit",
        lambda: [wire.request(0, "ostler", "echo", {"text": wire.wide(60_000)})],
        connections=100,
    ),
    Attack("wide relays", lambda: [_relay(0, wire.wide(60_000))], connections=100),
    Attack("relays of 30,000 texts", lambda: [_relay(0, [f"x{number}" for number in range(30_000)])], connections=50),
    Attack("deep nests", lambda: [wire.request(0, "ostler", "echo", {"text": wire.deep(60_000)})], connections=100),
    Attack("texts of 8 MB", lambda: [wire.request(0, "ostler", "echo", {"text": "x" * 8_000_000})], connections=20),
    Attack("argument names of 1 MB", lambda: [wire.request(0, "ostler", "echo", {"x" * 1_000_000: 1})], connections=50),
    Attack(
        "unfinished messages of 31 MiB",
        opening=lambda: [wire.frame(bytes(31 * MIB), size=32 * MIB - 64)],
        connections=100,
    ),
)

_STREAMS = (
    Attack("unread async streams, one-byte items", opening=_streams("ticks", 1), connections=12, reads=False),
    Attack("read async streams, one-byte items", opening=_streams("ticks", 1), connections=12),
    Attack(
        "unread def streams, one-byte items",
        opening=_streams("counts", 1),
        connections=12,
        reads=False,
        service_busy=True,
    ),
    Attack("read def streams, one-byte items", opening=_streams("counts", 1), connections=12, service_busy=True),
    Attack("unread async streams, 100 kB items", opening=_streams("ticks", 100_000), connections=12, reads=False),
    Attack("read async streams, 100 kB items", opening=_streams("ticks", 100_000), connections=12),
    Attack(
        "unread def streams, 100 kB items",
        opening=_streams("counts", 100_000),
        connections=12,
        reads=False,
        service_busy=True,
    ),
)

_EVENTS = (
    Attack("subscriptions", _filled(wire.subscribe(b"a")), kind=b"SUB", by=EVERYONE),
    Attack("unsubscriptions", _filled(wire.unsubscribe(b"a")), kind=b"SUB", by=EVERYONE),
    Attack(
        "toggles beside 1,000 prefixes",
        _filled(wire.subscribe(b"z") + wire.unsubscribe(b"z")),
        _once(lambda n: wire.subscribe(b"p%d." % n), 1000),
        kind=b"SUB",
        connections=50,
    ),
    Attack(
        "questions for last events",
        _numbered(lambda n: wire.question(n, b"")),
        kind=b"SUB",
        by=EVERYONE,
        events=(200, 900),
    ),
    Attack(
        "questions, answers not read",
        _numbered(lambda n: wire.question(n, b"target.")),
        kind=b"SUB",
        reads=False,
        events=(200, 900),
    ),
    Attack(
        "distinct prefixes",
        opening=_once(lambda n: wire.subscribe(b"target.attacked.e%d." % n), 1000),
        kind=b"SUB",
        connections=200,
        events=(100, 10),
    ),
    Attack(
        "big events that nobody reads",
        opening=lambda: [wire.subscribe(b"target.")],
        kind=b"SUB",
        reads=False,
        connections=200,
        events=(8, 500_000),
    ),
    Attack(
        "small events that nobody reads",
        opening=lambda: [wire.subscribe(b"")],
        kind=b"SUB",
        reads=False,
        events=(200, 500),
    ),
)

ATTACKS = {attack.name: attack for attack in (*_PROTOCOL, *_CALLS, *_MESSAGES, *_STREAMS, *_EVENTS)}
