"""Clients that keep a daemon under load while it is reloaded, and what a daemon may not gather meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ostler import Client, OstlerError

if TYPE_CHECKING:
    from daemon_process import DaemonProcess

_PAUSE = 0.002
"""Seconds between two calls of a client: the daemon under test shares its cores with its clients here."""
Act = Callable[[Client], object]


class Load:
    """Clients, each on a thread, that repeat an act until the end and note what failed."""

    def __init__(self, root: Path, acts: list[Act]) -> None:
        self._root = root
        self._end = threading.Event()
        self.failed: list[str] = []
        self.counts = [0] * len(acts)
        self._threads = [
            threading.Thread(target=self._repeat, args=(number, act), daemon=True) for number, act in enumerate(acts)
        ]

    def _repeat(self, number: int, act: Act) -> None:
        with Client(root=str(self._root), timeout=30) as client:
            while not self._end.is_set():
                try:
                    act(client)
                except OstlerError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                else:
                    self.counts[number] += 1
                self._end.wait(_PAUSE)

    def wait_for_calls(self, more: int, timeout: float = 30.0) -> None:
        """Wait until every client has been answered `more` times from now on."""
        wanted = [count + more for count in self.counts]
        until = time.monotonic() + timeout
        while any(count < each for count, each in zip(self.counts, wanted, strict=True)):
            assert time.monotonic() < until, f"no progress: {self.counts} of {wanted}, failed {self.failed[:3]}"
            self._end.wait(0.005)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Put the daemon under load for a block."""
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_calls(1)
            yield self
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(30)


class Footprint(NamedTuple):
    """What a process holds."""

    threads: int
    descriptors: int
    memory: int


def footprint(daemon: DaemonProcess) -> Footprint:
    """Return what the daemon holds now; memory in bytes."""
    folder = Path("/proc", str(daemon.running.pid))
    pages = int((folder / "statm").read_text().split()[1])
    threads, descriptors = (len([*(folder / name).iterdir()]) for name in ("task", "fd"))
    return Footprint(threads, descriptors, pages * os.sysconf("SC_PAGE_SIZE"))
