"""From a change on one host to the scheduler on another: an operator's word, room, and a host that is killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measured_daemon import DaemonUnderTest
from rows import FigureRow, median

from ostler import Client
from ostler.messaging.tcp.curve import generate_keys

_CONFIG = """
[daemon]
host = "{host}"
[network]
rpc = "tcp://127.0.0.1:{port}"
secret_key = {{{{file = "{folder}/{host}.key"}}}}
[network.keys]
{other} = '{key}'
[network.peers.{other}]
rpc = "tcp://127.0.0.1:{other_port}"
[access]
operator = ["key:{other}"]
[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{{root}}/volumes"
"""
_SCHEDULER = '[services.scheduler]\nmanager = "scheduler"\n'
_PATIENCE = 30.0


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Start two hosts, change one some times, and ask the scheduler of the other until it goes by it."""
    one, two = _hosts(folder / "lag")
    said, drained, room, killed = [], [], [], []
    try:
        one.start()
        two.start()
        with Client(root=str(one.root)) as here:
            _until(lambda: _chosen(here, "node2"))
            for _ in range(5 if quick else 40):
                with Client(root=str(two.root)) as there:
                    said += _disable_and_enable(here, there)
                    drained += _drain_and_resume(here, there)
                    room += _make_and_delete(here, there)
            for _ in range(2 if quick else 5):
                os.kill(two.pid, signal.SIGKILL)
                killed.append(_until(lambda: not _chosen(here, "node2")))
                two.stop()
                two.start()
                _until(lambda: _chosen(here, "node2"))
    finally:
        one.remove()
        two.remove()
    return [
        FigureRow(name="disabled or enabled, to a scheduler on another host", value=median(said), unit="s", limit=0.25),
        FigureRow(
            name="drained or resumed, to a scheduler on another host", value=median(drained), unit="s", limit=0.25
        ),
        FigureRow(name="room taken or freed, to a scheduler on another host", value=median(room), unit="s", limit=0.25),
        FigureRow(name="the longest of these", value=max(said + drained + room), unit="s", limit=1.0),
        FigureRow(name="host killed, to a scheduler on another host", value=median(killed), unit="s", limit=1.0),
    ]


def _disable_and_enable(here: Client, there: Client) -> Iterator[float]:
    there.call("ostler", "service_disable", topic="volume", reason="a bench")
    yield _until(lambda: not _chosen(here, "node2"))
    there.call("ostler", "service_enable", topic="volume")
    yield _until(lambda: _chosen(here, "node2"))


def _drain_and_resume(here: Client, there: Client) -> Iterator[float]:
    there.call("ostler", "service_drain", topic="volume")
    yield _until(lambda: not _chosen(here, "node2"))
    there.call("ostler", "service_resume", topic="volume")
    yield _until(lambda: _chosen(here, "node2"))


def _make_and_delete(here: Client, there: Client) -> Iterator[float]:
    there.call("volume", "create_volume", name="a", size="1MiB", backend="local")
    yield _until(lambda: _volumes(here, "node2") == 1)
    there.call("volume", "delete_volume", name="a")
    yield _until(lambda: _volumes(here, "node2") == 0)


def _hosts(folder: Path) -> tuple[DaemonUnderTest, DaemonUnderTest]:
    folder.mkdir(parents=True)
    names, ports, keys = ("node1", "node2"), _free_ports(), [generate_keys(), generate_keys()]
    made = []
    for number, host in enumerate(names):
        other = 1 - number
        file = folder / f"{host}.key"
        file.write_text(keys[number].secret + "\n", encoding="ascii")
        file.chmod(0o600)
        text = _CONFIG.format(
            host=host, port=ports[number], folder=folder,
            other=names[other], key=keys[other].public.replace("{", "{{").replace("}", "}}"), other_port=ports[other],
        )  # fmt: skip
        made.append(DaemonUnderTest(folder / host, text + (_SCHEDULER if number == 0 else "")))
    return made[0], made[1]


def _free_ports() -> list[int]:
    """Return two ports that are free, and the ports after them as well."""
    found: list[int] = []
    while len(found) < 2:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            if all(abs(port - other) > 1 for other in found):
                found.append(port)
    return found


def _chosen(client: Client, host: str) -> bool:
    """Return whether the scheduler might choose the backend of a host."""
    said = client.call("scheduler", "explain", topic="volume")
    return any(one["host"] == host and not one["dropped_by"] for one in said["candidates"])


def _volumes(client: Client, host: str) -> int:
    """Return how many volumes the scheduler knows of on the backend of a host; -1 when it knows nothing of it."""
    found = [one["facts"] for one in client.call("scheduler", "candidates", topic="volume") if one["host"] == host]
    return int(found[0]["volumes"]) if found else -1


def _until(look: Callable[[], bool]) -> float:
    """Look until what is seen is true; return the seconds that took.

    Raises:
        RuntimeError: It did not come.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < _PATIENCE:
        if look():
            return time.perf_counter() - began
        time.sleep(0.002)
    raise RuntimeError("the scheduler did not come to know of a change")
