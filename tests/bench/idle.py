"""An idle daemon with five services: memory, and how much of a core it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from measured_daemon import BUNDLED, ECHO, IMPORTS, DaemonUnderTest, cpu_share, memory
from rows import FigureRow

CONFIG = BUNDLED + "".join(ECHO.format(topic=topic) for topic in ("echo1", "echo2", "echo3"))
_SETTLE = 3.0


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Leave a daemon alone for a while and look at what it used."""
    seconds = 5.0 if quick else 20.0  # two heartbeats of each service
    with DaemonUnderTest(folder / "idle", CONFIG) as daemon:
        time.sleep(_SETTLE)
        percent = cpu_share(daemon.pid, seconds, windows=1)  # a heartbeat must not fall between windows
        resident = memory(daemon.pid)
    return [
        FigureRow(name="idle memory, 5 services", value=resident, unit="MB", baseline=bare_memory(), limit=45),
        FigureRow(name="idle CPU, 5 services", value=percent, unit="% of a core", limit=0.2),
    ]


def bare_memory() -> float:
    """Return the memory of an interpreter that has only imported the libraries, in MB."""
    code = f"{IMPORTS}\nprint('ready', flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        return memory(child.pid)
    finally:
        child.communicate(b"\n")
