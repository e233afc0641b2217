"""Requests to the REST API, beside the same server with an empty handler in the same minute; and event streams."""

from __future__ import annotations

import os
import selectors
import socket
import time
from pathlib import Path

from bench_clients import KeepAlive
from cores import Cores, warm_cores
from measured_daemon import ECHO, DaemonUnderTest
from rows import AT_LEAST, FigureRow, median, percentile

from ostler import Client

_CONFIG = (
    ECHO.format(topic="echo")
    + """
[services.web]
manager = "http"
listen = ["unix:{root}/web.sock"]
[services.web.limits]
max_connections = 2000
max_connections_per_client = 2000
[services.web.apps."/v1"]
app = "api"
[services.web.apps."/empty"]
app = "bench_asgi:empty"
"""
)
_READ = "/v1/topics/echo/methods/echo_async?text=" + "x" * 32
CONNECTIONS = 64
STREAMS = 1000


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Read over one connection and over 64, in turns with the empty handler; then a thousand event streams."""
    rounds, singles, many = (3, 300, 2000) if quick else (7, 1500, 8000)
    figures: dict[str, list[float]] = {}
    with warm_cores() as how, Cores().apart() as cores, DaemonUnderTest(folder / "http", _CONFIG) as daemon:
        cores.clients_from_now()
        address = daemon.root / "web.sock"
        for _ in range(rounds):
            for name, path in (("empty", "/empty"), ("read", _READ)):
                figures.setdefault(f"{name} p50", []).append(one_at_a_time(address, path, singles))
                figures.setdefault(f"{name} rate", []).append(in_flight(address, path, many))
        load = event_streams(daemon, address, 3 if quick else 10)
    found = {name: median(values) for name, values in figures.items()}
    return [
        FigureRow(
            name="read over HTTP, one at a time, p50", value=found["read p50"], unit="us", baseline=found["empty p50"],
            limit=1.3, relative=True, binding=False, note=f"beside an empty handler; {how}",
        ),
        FigureRow(
            name="reads over HTTP, 64 connections", value=found["read rate"], unit="/s", baseline=found["empty rate"],
            limit=0.6, sense=AT_LEAST, relative=True, binding=False, note="beside an empty handler",
        ),
        FigureRow(
            name=f"{STREAMS} event streams, one event a second", value=load, unit="% of a core", limit=15.0,
            binding=False,
        ),
    ]  # fmt: skip


def one_at_a_time(address: Path, path: str, count: int) -> float:
    """Return the median of so many requests over one connection, in microseconds."""
    seconds = []
    with KeepAlive(address, path) as connection:
        for number in range(count + 50):
            began = time.perf_counter()
            connection.send()
            connection.receive()
            if number >= 50:
                seconds.append(time.perf_counter() - began)
    return 1e6 * percentile(seconds, 0.5)


def in_flight(address: Path, path: str, count: int) -> float:
    """Return how many requests a second 64 connections get, each with one in flight."""
    connections = [KeepAlive(address, path) for _ in range(CONNECTIONS)]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        done, began = 0, time.perf_counter()
        while done < count:
            for key, _ in selector.select():
                if key.data.receive_some():
                    done += 1
                    key.data.send()
        seconds = time.perf_counter() - began
    for connection in connections:
        connection.socket.close()
    return done / seconds


def event_streams(daemon: DaemonUnderTest, address: Path, seconds: int) -> float:
    """Return how much of a core the daemon uses for a thousand event streams that all get an event a second, in %.

    Raises:
        RuntimeError: One of them has missed an event.
    """
    streams = [_open_stream(address) for _ in range(STREAMS)]
    with Client(root=str(daemon.root)) as client:
        began, used = time.perf_counter(), _cpu_seconds(daemon.pid)
        for number in range(seconds):
            client.call("echo", "publish_burst", count=1)
            time.sleep(max(0.0, began + number + 1 - time.perf_counter()))
        load = (_cpu_seconds(daemon.pid) - used) / (time.perf_counter() - began)
    for stream in streams:
        text = b""
        while text.count(b"event: event") < seconds:
            if not (piece := stream.recv(65536)):
                raise RuntimeError(f"an event stream ended after {text.count(b'event: event')} events")
            text += piece
        stream.close()
    return 100.0 * load


def _open_stream(address: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    stream.connect(str(address))
    stream.sendall(b"GET /v1/events?topic=echo HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    text = b""
    while b"event: ready" not in text:
        text += stream.recv(65536)
    return stream


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
