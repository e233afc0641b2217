"""Attacks on a daemon's ports: each function starts an attacker in a process of its own, on loopback only.

Each returns the process, which ends by itself after `seconds`. `AttackedPort` measures what `echo` takes for others
meanwhile; `make attack` and the tests use that.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, Self

import zmq

from ostler import Client
from ostler.messaging.tcp.bind import parse_tcp_address
from ostler.messaging.tcp.curve import KeyPair, generate_keys
from ostler.messaging.wire.envelope import PROTOCOL_VERSION, Request, encode_request

MAX_CONNECTIONS = 480
ATTACKER_ROLES = ("stranger", "nobody", "eve")
"""Who attacks: a key that is not known, one without a role, a viewer."""
LIMITS = {"root": 100.0, "admin": 100.0, "viewer": 250.0}
"""Milliseconds that are promised, as for unix sockets."""
MEMORY_LIMIT = 400.0
"""MiB that the daemon may grow by."""
MIB = 1024 * 1024


class TargetAddress(NamedTuple):
    """What is attacked.

    Attributes:
        address: Where the daemon takes calls; `tcp://127.0.0.1:PORT`. Events are at the next port.
        server: The daemon's public key.
        keys: The attacker's key pair; None for one that the daemon does not know.
    """

    address: str
    server: str
    keys: KeyPair | None = None


def half_open(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Hold connections that never say anything."""
    return _started(_half_open, target, seconds)


def connect_and_leave(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Connect and leave at once, without end."""
    return _started(_connect_and_leave, target, seconds)


def large_before_handshake(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Announce a handshake of 31 MiB on many connections, and send most of it."""
    return _started(_large_before_handshake, target, seconds)


def handshakes(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Make whole handshakes without end, with the key given: an unknown one, one without a role, or a viewer's."""
    return _started(_handshakes, target, seconds)


def garbage(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Send what is no message over many connections."""
    return _started(_garbage, target, seconds)


def calls(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Ask for descriptions with schemas over many connections, as fast as it goes, and read no answer."""
    return _started(_calls, target, seconds)


def subscriptions(target: TargetAddress, seconds: float = 3.0) -> BaseProcess:
    """Subscribe, and ask for last events, over many connections without end."""
    return _started(_subscriptions, target, seconds)


ATTACKS: dict[str, Callable[[TargetAddress, float], BaseProcess]] = {
    function.__name__: function
    for function in (half_open, connect_and_leave, large_before_handshake, handshakes, garbage, calls, subscriptions)
}


def _started(work: Callable[[TargetAddress, float], None], target: TargetAddress, seconds: float) -> BaseProcess:
    host = parse_tcp_address(target.address).host
    if host not in ("127.0.0.1", "::1"):
        raise ValueError(f"only this machine is attacked, and not {host}")
    process = multiprocessing.get_context("spawn").Process(target=work, args=(target, seconds), daemon=True)
    process.start()
    return process


def _half_open(target: TargetAddress, seconds: float) -> None:
    where, end, held = parse_tcp_address(target.address), time.monotonic() + seconds, []
    while time.monotonic() < end:
        with suppress(OSError):
            held.append(socket.create_connection(where, timeout=1))
        if len(held) >= MAX_CONNECTIONS:
            held.pop(0).close()
            time.sleep(0.001)


def _connect_and_leave(target: TargetAddress, seconds: float) -> None:
    where, end = parse_tcp_address(target.address), time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(where, timeout=1).close()


def _large_before_handshake(target: TargetAddress, seconds: float) -> None:
    where, end, held = parse_tcp_address(target.address), time.monotonic() + seconds, []
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    while time.monotonic() < end:
        with suppress(OSError):
            made = socket.create_connection(where, timeout=0.5)
            held.append(made)
            made.sendall(greeting + b"\x06" + struct.pack(">Q", 31 * MIB))
            for _ in range(30):
                made.sendall(bytes(MIB))
        if len(held) >= MAX_CONNECTIONS:
            held.pop(0).close()


def _sockets(
    context: zmq.Context[zmq.Socket[bytes]], target: TargetAddress, kind: int, count: int
) -> list[zmq.Socket[bytes]]:
    return [_socket(context, target, kind) for _ in range(count)]


def _socket(context: zmq.Context[zmq.Socket[bytes]], target: TargetAddress, kind: int) -> zmq.Socket[bytes]:
    keys, made = target.keys or generate_keys(), context.socket(kind)
    made.linger, made.sndhwm, made.rcvhwm, made.ipv6 = 0, 1000, 1, 1
    made.curve_publickey, made.curve_secretkey = keys.public.encode(), keys.secret.encode()
    made.curve_serverkey = target.server.encode()
    at = parse_tcp_address(target.address)
    made.connect(target.address if kind == zmq.DEALER else f"tcp://{at.host}:{at.port + 1}")
    return made


def _handshakes(target: TargetAddress, seconds: float) -> None:
    end = time.monotonic() + seconds
    with zmq.Context() as context:
        while time.monotonic() < end:
            for made in _sockets(context, target, zmq.DEALER, 20):
                made.send(b"x", zmq.NOBLOCK)
                made.close(linger=20)
            time.sleep(0.01)


def _send_all(
    target: TargetAddress, seconds: float, kind: int, message: Callable[[int], bytes], count: int = 200
) -> None:
    end, number = time.monotonic() + seconds, 0
    with zmq.Context() as context:
        made = _sockets(context, target, kind, count)
        while time.monotonic() < end:
            number += 1
            for each in made:
                with suppress(zmq.Again):
                    each.send(message(number), zmq.NOBLOCK)
        context.destroy(linger=0)


def _garbage(target: TargetAddress, seconds: float) -> None:
    _send_all(target, seconds, zmq.DEALER, lambda number: b"\xc1" * (number % 64))


def _calls(target: TargetAddress, seconds: float) -> None:
    _send_all(target, seconds, zmq.DEALER, _describe)


def _describe(number: int) -> bytes:
    arguments = {"topic": "ostler", "schema": True}
    return encode_request(Request(PROTOCOL_VERSION, number, "ostler", "describe", arguments))  # type: ignore[arg-type]


def _subscriptions(target: TargetAddress, seconds: float) -> None:
    _send_all(target, seconds, zmq.XSUB, lambda number: b"\1" + (b"!last %d" if number % 2 else b"p%d") % number)


# -------------------------------------------------------------------- as a program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _configure(root: Path, keys: dict[str, KeyPair]) -> str:
    """Write the configuration of a daemon that knows some keys; return its address."""
    (root / "etc").mkdir()
    secret = root / "key"
    secret.write_text(keys["server"].secret)
    secret.chmod(0o600)
    address = f"tcp://127.0.0.1:{_free_port()}"
    known = "\n".join(f"{name} = '{pair.public}'" for name, pair in keys.items() if name != "server")
    (root / "etc" / "ostler.toml").write_text(
        f"""[network]\nrpc = "{address}"\nsecret_key = {{file = "{secret}"}}\n[network.keys]\n{known}\n"""
        """[access]\nadmin = ["key:admin"]\nviewer = ["key:viewer", "key:eve"]\n"""
    )
    return address


def _measure(client: Client, until: float) -> list[float]:
    """Return the milliseconds of one call after the other, until a moment."""
    took = []
    while time.monotonic() < until:
        began = time.monotonic()
        client.call("ostler", "echo", text="x")
        took.append((time.monotonic() - began) * 1000)
        time.sleep(0.01)
    return sorted(took)


class PortFigures(NamedTuple):
    """What was seen of one attack: 99th percentiles in milliseconds, and memory in MiB.

    Attributes:
        name: Who attacked, and how.
        took: By who asked: `root` on the unix socket, `admin` and `viewer` over the port.
        before: Memory before.
        peak: The most meanwhile.
    """

    name: str
    took: dict[str, float]
    before: float
    peak: float

    def __str__(self) -> str:
        """Return it as a line."""
        texts = [f"{who} {took:.0f} ms" for who, took in self.took.items()]
        return f"{self.name:56}p99 of {', '.join(texts)}; {self.before:.0f} MiB before, {self.peak:.0f} at most"

    def misses(self, slack: float = 1.0) -> list[str]:
        """Return what was promised and not kept; times may be `slack` times as long."""
        found = [
            f"{who}'s p99 {took:.0f} ms, above {LIMITS[who] * slack:.0f} ms"
            for who, took in self.took.items()
            if took > LIMITS[who] * slack
        ]
        if self.peak - self.before > MEMORY_LIMIT:
            found.append(f"{self.peak - self.before:.0f} MiB more, above {MEMORY_LIMIT:.0f}")
        return found


class AttackedPort:
    """A daemon with ports, and honest users of it; a context manager."""

    def __init__(self) -> None:
        self._keys = {name: generate_keys() for name in ("server", "admin", "viewer", "eve", "nobody")}
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self._folder.name)
        self._address = _configure(root, self._keys)
        log = (root / "log").open("w")
        with log:
            self._daemon = subprocess.Popen(
                [Path(sys.executable).with_name("ostler"), "--root", root, "run"], stdout=log, stderr=log
            )
        _wait(root)
        server = self._keys["server"].public
        self._clients = {"root": Client(f"ipc://{root}/run/rpc.sock", timeout=20)} | {
            name: Client(self._address, server_key=server, secret_key=self._keys[name].secret, timeout=20)
            for name in ("admin", "viewer")
        }
        for client in self._clients.values():
            client.call("ostler", "echo", text="x")

    def attack(self, name: str, who: str, seconds: float) -> PortFigures:
        """Attack it for so many seconds, as `nobody`, as `eve`, or with a key that is not known."""
        target = TargetAddress(self._address, self._keys["server"].public, self._keys.get(who))
        before = largest = self._memory()
        process = ATTACKS[name](target, seconds + 1.0)  # a process of its own takes some time to start
        with ThreadPoolExecutor() as pool:
            until = time.monotonic() + seconds
            waiting = {each: pool.submit(_measure, client, until) for each, client in self._clients.items()}
            while time.monotonic() < until:
                largest = max(largest, self._memory())
                time.sleep(0.02)
            took = {each: future.result() for each, future in waiting.items()}
        process.join(20)
        quantiles = {each: times[int(len(times) * 0.99)] for each, times in took.items()}
        return PortFigures(f"port, {who}: {name}", quantiles, before, max(largest, self._memory()))

    def _memory(self) -> float:
        return int(Path(f"/proc/{self._daemon.pid}/statm").read_text().split()[1]) * 4096 / MIB

    def close(self) -> None:
        """End it."""
        for client in self._clients.values():
            client.close()
        self._daemon.terminate()
        self._daemon.wait(20)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self.close()


def selection(only: list[str], *, quick: bool) -> list[tuple[str, str]]:
    """Return the attacks to run, by name and by who; in a hurry only those of a key with a role."""
    return [
        (name, who)
        for name in ATTACKS
        for who in (("eve",) if quick else ATTACKER_ROLES)
        if not only or any(part in f"port, {who}: {name}" for part in only)
    ]


def _wait(root: Path) -> None:
    until = time.monotonic() + 20
    while not (root / "run" / "rpc.sock").exists():
        if time.monotonic() > until:
            raise TimeoutError("the daemon does not start")
        time.sleep(0.05)
    time.sleep(0.5)
