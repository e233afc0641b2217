"""exec to READY, and `ostler status`, beside an interpreter that imports the same libraries."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from measured_daemon import BUNDLED, IMPORTS, DaemonUnderTest, command, seconds_of
from rows import FigureRow, median


def measure(folder: Path, quick: bool) -> list[FigureRow]:
    """Start, ask and stop a daemon some times, each time beside the yardstick."""
    daemon = DaemonUnderTest(folder / "startup", BUNDLED)
    imports, ready, status = [], [], []
    try:
        daemon.start()  # makes the database and warms the page cache; not counted
        daemon.stop()
        for _ in range(3 if quick else 9):
            imports.append(seconds_of([sys.executable, "-c", IMPORTS]))
            ready.append(daemon.start())
            time.sleep(0.3)  # what goes on after READY is not the command's
            status.append(seconds_of([*command(), "--root", str(daemon.root), "status"]))
            daemon.stop()
    finally:
        daemon.remove()
    yardstick = median(imports)
    return [
        FigureRow(name="exec to READY", value=median(ready), unit="s", baseline=yardstick, limit=2.0, relative=True),
        FigureRow(name="ostler status, from exec", value=median(status), unit="s", baseline=yardstick, limit=0.25),
    ]
