"""Reading the metrics of a daemon with 50 services: over HTTP, the time of it, and what callers notice meanwhile."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path

from measured_daemon import BUNDLED, ECHO, DaemonUnderTest, cpu_seconds
from rows import FigureRow, median

from ostler import Client

SERVICES = 48
"""Of the bench, beside those of the bundled plugins."""
_WEB = """
[services.web]
manager = "http"
[services.web.apps."/metrics"]
app = "metrics"
open = true
"""


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Call each method of each service, read the metrics again and again, and call beside it."""
    services = "".join(ECHO.format(topic=f"echo{number}") for number in range(SERVICES))
    scrapes = 30 if quick else 150
    with (
        DaemonUnderTest(folder / "scrape", BUNDLED + services + _WEB) as daemon,
        Client(root=str(daemon.root)) as client,
    ):
        for number in range(SERVICES):
            for method in ("echo_async", "echo_sync"):
                client.call(f"echo{number}", method, text="x")
        address = client.call("web", "http_status")["addresses"][0].removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=20)
        size = len(_read(connection))
        quiet = _call_times(daemon.root, lambda: time.sleep(2))
        began = cpu_seconds(daemon.pid)
        took = [_timed(connection) for _ in range(scrapes)]
        cpu = (cpu_seconds(daemon.pid) - began) / scrapes
        beside = _call_times(daemon.root, lambda: [_paced(connection) for _ in range(10 if quick else 30)])
        connection.close()
    return [
        FigureRow(
            name="metrics of 50 services over HTTP", value=median(took) * 1e3, unit="ms", limit=20,
            note=f"{size / 1e3:.0f} kB, {cpu * 1e3:.1f} ms of CPU",
        ),
        FigureRow(
            name="call while metrics are read, 99 %", value=_percentile(beside) * 1e6, unit="us",
            baseline=_percentile(quiet) * 1e6, limit=10_000, note="read five times a second",
        ),
    ]  # fmt: skip


def _read(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/metrics")
    return connection.getresponse().read()


def _timed(connection: http.client.HTTPConnection) -> float:
    began = time.perf_counter()
    _read(connection)
    return time.perf_counter() - began


def _paced(connection: http.client.HTTPConnection) -> None:
    _read(connection)
    time.sleep(0.2)


def _call_times(root: Path, work: Callable[[], object]) -> list[float]:
    """Return the seconds of calls that are made, one after the other, while some work is done."""
    took: list[float] = []
    done = threading.Event()

    def call() -> None:
        with Client(root=str(root)) as client:
            while not done.is_set():
                began = time.perf_counter()
                client.call("ostler", "echo")
                took.append(time.perf_counter() - began)
                time.sleep(0.0005)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        work()
    finally:
        done.set()
        caller.join()
    return took


def _percentile(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]
