"""Attacks on a daemon's ports: each function starts an attacker in a process of its own, on loopback only.

Each returns the process, which ends by itself after `seconds`. What is measured meanwhile is for the caller: `make
attack`, or this file as a program, which starts a daemon of its own and says what `echo` took for others.
"""

from __future__ import annotations

import argparse
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
from typing import NamedTuple

import zmq

from ostler import Client
from ostler.messaging.envelope import VERSION, Request, encode_request
from ostler.messaging.zmq.curve import Keys, new_keys
from ostler.messaging.zmq.tcp import parse

MOST_CONNECTIONS = 480
MIB = 1024 * 1024


class Target(NamedTuple):
    """What is attacked.

    Attributes:
        address: Where the daemon takes calls; `tcp://127.0.0.1:PORT`. Events are at the next port.
        server: The daemon's public key.
        keys: The attacker's key pair; None for one that the daemon does not know.
    """

    address: str
    server: str
    keys: Keys | None = None


def half_open(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Hold connections that never say anything."""
    return _started(_half_open, target, seconds)


def connect_and_leave(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Connect and leave at once, without end."""
    return _started(_connect_and_leave, target, seconds)


def large_before_handshake(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Announce a handshake of 31 MiB on many connections, and send most of it."""
    return _started(_large_before_handshake, target, seconds)


def handshakes(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Make whole handshakes without end, with the key given: an unknown one, one without a role, or a viewer's."""
    return _started(_handshakes, target, seconds)


def garbage(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Send what is no message over many connections."""
    return _started(_garbage, target, seconds)


def calls(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Ask for descriptions with schemas over many connections, as fast as it goes, and read no answer."""
    return _started(_calls, target, seconds)


def subscriptions(target: Target, seconds: float = 3.0) -> BaseProcess:
    """Subscribe, and ask for last events, over many connections without end."""
    return _started(_subscriptions, target, seconds)


ATTACKS: dict[str, Callable[[Target, float], BaseProcess]] = {
    function.__name__: function
    for function in (half_open, connect_and_leave, large_before_handshake, handshakes, garbage, calls, subscriptions)
}


def _started(work: Callable[[Target, float], None], target: Target, seconds: float) -> BaseProcess:
    host = parse(target.address).host
    if host not in ("127.0.0.1", "::1"):
        raise ValueError(f"only this machine is attacked, and not {host}")
    process = multiprocessing.get_context("spawn").Process(target=work, args=(target, seconds), daemon=True)
    process.start()
    return process


def _half_open(target: Target, seconds: float) -> None:
    where, end, held = parse(target.address), time.monotonic() + seconds, []
    while time.monotonic() < end:
        with suppress(OSError):
            held.append(socket.create_connection(where, timeout=1))
        if len(held) >= MOST_CONNECTIONS:
            held.pop(0).close()
            time.sleep(0.001)


def _connect_and_leave(target: Target, seconds: float) -> None:
    where, end = parse(target.address), time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(where, timeout=1).close()


def _large_before_handshake(target: Target, seconds: float) -> None:
    where, end, held = parse(target.address), time.monotonic() + seconds, []
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    while time.monotonic() < end:
        with suppress(OSError):
            made = socket.create_connection(where, timeout=0.5)
            held.append(made)
            made.sendall(greeting + b"\x06" + struct.pack(">Q", 31 * MIB))
            for _ in range(30):
                made.sendall(bytes(MIB))
        if len(held) >= MOST_CONNECTIONS:
            held.pop(0).close()


def _sockets(context: zmq.Context[zmq.Socket[bytes]], target: Target, kind: int, count: int) -> list[zmq.Socket[bytes]]:
    return [_socket(context, target, kind) for _ in range(count)]


def _socket(context: zmq.Context[zmq.Socket[bytes]], target: Target, kind: int) -> zmq.Socket[bytes]:
    keys, made = target.keys or new_keys(), context.socket(kind)
    made.linger, made.sndhwm, made.rcvhwm, made.ipv6 = 0, 1000, 1, 1
    made.curve_publickey, made.curve_secretkey = keys.public.encode(), keys.secret.encode()
    made.curve_serverkey = target.server.encode()
    at = parse(target.address)
    made.connect(target.address if kind == zmq.DEALER else f"tcp://{at.host}:{at.port + 1}")
    return made


def _handshakes(target: Target, seconds: float) -> None:
    end = time.monotonic() + seconds
    with zmq.Context() as context:
        while time.monotonic() < end:
            for made in _sockets(context, target, zmq.DEALER, 20):
                made.send(b"x", zmq.NOBLOCK)
                made.close(linger=20)
            time.sleep(0.01)


def _send_all(target: Target, seconds: float, kind: int, message: Callable[[int], bytes], count: int = 200) -> None:
    end, number = time.monotonic() + seconds, 0
    with zmq.Context() as context:
        made = _sockets(context, target, kind, count)
        while time.monotonic() < end:
            number += 1
            for each in made:
                with suppress(zmq.Again):
                    each.send(message(number), zmq.NOBLOCK)
        context.destroy(linger=0)


def _garbage(target: Target, seconds: float) -> None:
    _send_all(target, seconds, zmq.DEALER, lambda number: b"\xc1" * (number % 64))


def _calls(target: Target, seconds: float) -> None:
    _send_all(target, seconds, zmq.DEALER, _describe)


def _describe(number: int) -> bytes:
    arguments = {"topic": "ostler", "schema": True}
    return encode_request(Request(VERSION, number, "ostler", "describe", arguments))  # type: ignore[arg-type]


def _subscriptions(target: Target, seconds: float) -> None:
    _send_all(target, seconds, zmq.XSUB, lambda number: b"\1" + (b"!last %d" if number % 2 else b"p%d") % number)


# -------------------------------------------------------------------- as a program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _configure(root: Path, keys: dict[str, Keys]) -> str:
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


def _attack(name: str, target: Target, clients: dict[str, Client], seconds: float, pid: int) -> str:
    """Attack, and return what it was like for others: the 99th percentile of each, in milliseconds, and memory."""
    process = ATTACKS[name](target, seconds)
    figures: dict[str, list[float]] = {}
    with ThreadPoolExecutor() as pool:
        until = time.monotonic() + seconds
        waiting = {who: pool.submit(_measure, client, until) for who, client in clients.items()}
        largest = 0
        while time.monotonic() < until:
            largest = max(largest, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096)
            time.sleep(0.02)
        figures = {who: future.result() for who, future in waiting.items()}
    process.join(10)
    texts = [f"{who} {took[int(len(took) * 0.99)]:.1f} ms" for who, took in figures.items()]
    return f"{', '.join(texts)}, {largest / MIB:.0f} MiB"


def main() -> None:
    """Start a daemon, attack it, and say what that was like for others."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("attacks", nargs="*", help=f"which of {', '.join(ATTACKS)}; all when none is named")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each lasts, at most 30")
    options = parser.parse_args()
    keys = {name: new_keys() for name in ("server", "admin", "viewer", "eve", "nobody")}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        address = _configure(root, keys)
        daemon = subprocess.Popen([Path(sys.executable).with_name("ostler"), "--root", root, "run"])
        try:
            _wait(root)
            clients = {"root": Client(f"ipc://{root}/run/rpc.sock", timeout=20)} | {
                name: Client(address, server_key=keys["server"].public, secret_key=keys[name].secret, timeout=20)
                for name in ("admin", "viewer")
            }
            for name in options.attacks or ATTACKS:
                for who in (None, "nobody", "eve"):
                    target = Target(address, keys["server"].public, keys[who] if who is not None else None)
                    found = _attack(name, target, clients, min(options.seconds, 30.0), daemon.pid)
                    sys.stdout.write(f"{name} by {who or 'a key that is not known'}: p99 of {found}\n")
                    sys.stdout.flush()
                    time.sleep(1.0)
        finally:
            daemon.terminate()
            daemon.wait(20)


def _wait(root: Path) -> None:
    until = time.monotonic() + 20
    while not (root / "run" / "rpc.sock").exists():
        if time.monotonic() > until:
            raise TimeoutError("the daemon does not start")
        time.sleep(0.05)
    time.sleep(0.5)


if __name__ == "__main__":
    main()
