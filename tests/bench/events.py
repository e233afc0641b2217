"""Events to eight subscribers, beside a bare PUB with as many."""

from __future__ import annotations

import time
from pathlib import Path

from bare_pubsub import BarePubSub, Subscribers
from cores import Cores, warm_cores
from measured_daemon import BUNDLED, ECHO, DaemonUnderTest
from rows import AT_LEAST, FigureRow, median

from ostler import Client


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Publish bursts from a manager and count what arrives, in turns with the yardstick, on both kinds of cores."""
    rows = _rows(folder / "events-idle", quick, "")
    with warm_cores() as how:
        return rows + _rows(folder / "events-warm", quick, ", warm cores", how)


def _rows(folder: Path, quick: bool, where: str, how: str = "") -> list[FigureRow]:
    folder.mkdir()
    rounds, count = (3, 500) if quick else (9, 2000)
    bare_rates, rates, lost = [], [], 0
    config = BUNDLED + ECHO.format(topic="echo")
    with Cores().apart() as cores, BarePubSub(folder) as bare, DaemonUnderTest(folder / "events", config) as daemon:
        cores.clients_from_now()
        address = f"ipc://{daemon.root}/run/events.sock"
        with Client(root=str(daemon.root)) as client, Subscribers(address, b"echo.bench.tick") as subscribers:
            subscribers.settle(lambda: client.call("echo", "publish_burst", count=1))
            for _ in range(rounds):
                bare_rates.append(bare.deliveries(count))
                began = time.perf_counter()
                client.cast("echo", "publish_burst", count=count)
                received = subscribers.drain(count, patience=2.0)
                rates.append(received / (time.perf_counter() - began))
                lost += count * len(subscribers.sockets) - received
    name = f"events to 8 subscribers{where}" + (f" ({lost} lost)" if lost else "")
    return [
        FigureRow(
            name=name, note=how, value=median(rates), unit="deliveries/s", baseline=median(bare_rates),
            limit=0.6, sense=AT_LEAST, relative=True,
        )
    ]  # fmt: skip
