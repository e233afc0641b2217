"""The daemon that is attacked, and what it looks like from outside while it is."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "functional"))

from daemon_process import NOBODY as NOBODY_UID  # noqa: E402 - found there only now
from daemon_process import DaemonProcess  # noqa: E402

ADMIN_UID, VIEWER_UID, OPERATOR_UID = 2003, 2002, 2004
UIDS = {"nobody": [NOBODY_UID], "viewer": [2011], "viewers": [2011, 2012, 2013]}
WATCHDOG_SECONDS = 4.0
"""Seconds of `WatchdogSec`; a ping is sent each quarter."""
REPORT_INTERVAL = 0.5
CONFIG = f"""
[daemon]
host = "attacked"
stop_timeout = "10s"
[access]
viewer = ["{VIEWER_UID}", "2011", "2012", "2013"]
operator = ["{OPERATOR_UID}"]
admin = ["{ADMIN_UID}"]
[services.target]
manager = "attacked_manager:AttackedManager"
report_interval = "{REPORT_INTERVAL}s"
"""
_INTERVAL = 0.05
_VARIABLE = re.compile(r"0x[0-9a-f]+|\d+")
_STAMP = re.compile(r"^\S+ \S+ ")


def start_target() -> DaemonProcess:
    """Start a daemon with the service `target`."""
    environ = {"PYTHONPATH": str(HERE), "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}
    daemon = DaemonProcess(CONFIG, environ)
    daemon.make_traversable()
    return daemon.start()


def inside(daemon: DaemonProcess) -> dict[str, Any]:
    """Return what it counts itself: requests in progress, and bytes that peers make it hold."""
    messages = daemon.call("ostler", "dump")["messages"]
    return {"in_flight": messages["rpc"]["in_flight"], "held": messages["memory"]["held"],
            "clients": messages["rpc"]["clients"]}  # fmt: skip


@dataclass(frozen=True)
class ProcessSize:
    """Resident memory in MiB, threads and open descriptors of a process."""

    memory: float
    threads: int
    descriptors: int


NO_SIZE = ProcessSize(0, 0, 0)


def size_of(pid: int) -> ProcessSize:
    """Return how large a process is now."""
    place = Path(f"/proc/{pid}")
    pages = int((place / "statm").read_text(encoding="ascii").split()[1])
    threads, descriptors = (sum(1 for _ in (place / name).iterdir()) for name in ("task", "fd"))
    return ProcessSize(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threads, descriptors)


def repeated_lines(log: str, allowed: int) -> dict[str, int]:
    """Return the kinds of log lines that were written more often than is allowed, numbers set aside."""
    kinds = Counter(_VARIABLE.sub("#", _STAMP.sub("", line)) for line in log.splitlines())
    return {kind: count for kind, count in kinds.items() if count > allowed}


@dataclass
class DaemonWatch:
    """Looks at a daemon from outside, many times a second, on a thread of its own.

    Attributes:
        peak: The most of everything that was seen.
        pings: When watchdog pings were seen.
        beats: When the row in the services table had been written again.
    """

    daemon: DaemonProcess
    peak: ProcessSize = NO_SIZE
    pings: list[float] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)
        self._seen_pings = 0
        self._beat = -1

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_ended.set()
        self._thread.join(10)

    def longest_gap(self, moments: list[float], begin: float, end: float) -> float:
        """Return the longest pause between these moments, the begin and the end of a span among them."""
        within = [begin, *(moment for moment in moments if begin <= moment <= end), end]
        return max(after - before for before, after in itertools.pairwise(within))

    def _look_often(self) -> None:
        path = f"file:{next(self.daemon.root.rglob('ostler.db'))}?mode=ro"
        database = sqlite3.connect(path, uri=True, timeout=0.1)
        try:
            while not self._is_ended.wait(_INTERVAL):
                self._look(database)
        finally:
            database.close()

    def _look(self, database: sqlite3.Connection) -> None:
        try:
            size = size_of(self.daemon.running.pid)
        except OSError:
            return  # it has ended; that is said elsewhere
        self.peak = ProcessSize(
            max(self.peak.memory, size.memory),
            max(self.peak.threads, size.threads),
            max(self.peak.descriptors, size.descriptors),
        )
        pings = sum("WATCHDOG" in fields for fields in tuple(self.daemon.notices.received))
        if pings != self._seen_pings:
            self._seen_pings = pings
            self.pings.append(time.monotonic())
        try:
            (beat,) = database.execute("SELECT beat FROM services WHERE topic = 'target'").fetchone()
        except sqlite3.OperationalError:
            return  # locked at this moment
        if beat != self._beat:
            self._beat = beat
            self.beats.append(time.monotonic())
