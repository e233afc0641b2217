"""An idle daemon with five services: memory, and how much of a core it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rows import Row
from subject import BUNDLED, ECHO, IMPORTS, DaemonUnderTest, memory, use_of_processor

CONFIG = BUNDLED + "".join(ECHO.format(topic=topic) for topic in ("echo1", "echo2", "echo3"))
_SETTLE = 3.0


def measure(folder: Path, quick: bool) -> list[Row]:
    """Leave a daemon alone for a while and look at what it used."""
    seconds = 5.0 if quick else 20.0  # two heartbeats of each service
    with DaemonUnderTest(folder / "idle", CONFIG) as daemon:
        time.sleep(_SETTLE)
        percent = use_of_processor(daemon.pid, seconds, windows=1)  # a heartbeat must not fall between windows
        resident = memory(daemon.pid)
    return [
        Row(name="idle memory, 5 services", value=resident, unit="MB", yardstick=bare_memory(), limit=45),
        Row(name="idle CPU, 5 services", value=percent, unit="% of a core", limit=0.2),
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
