"""Which cores servers run on, and which clients."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LATENCY = Path("/dev/cpu_dma_latency")
_SPIN = """
import os, sys
os.sched_setaffinity(0, [int(sys.argv[1])])
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print("ready", flush=True)
while True:
    pass
"""


@contextlib.contextmanager
def warm_cores() -> Iterator[str]:
    """Keep the cores from going to sleep meanwhile; yields how.

    Root asks the kernel for a latency of 0 (`/dev/cpu_dma_latency`): an idle core polls for work, as with `idle=poll`.
    Others have a process of the class SCHED_IDLE run on each core, which gives way to all others: the core is awake,
    but has to change from one process to another.
    """
    try:
        latency = _LATENCY.open("wb", buffering=0)
    except OSError:
        with contextlib.ExitStack() as stack:
            for core in sorted(os.sched_getaffinity(0)):
                stack.enter_context(_spinner(core))
            yield "a SCHED_IDLE process on each core"
        return
    with latency:
        latency.write((0).to_bytes(4, sys.byteorder))
        yield "cpu_dma_latency 0"


@contextlib.contextmanager
def _spinner(core: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", _SPIN, str(core)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


class Cores:
    """Clients on the last core and servers on the others.

    A round trip between two cores takes three times as long as one on a single core, and the kernel changes its mind
    about which it is to be: a ratio of one to the other says nothing. Like this it is the same for all.
    """

    def __init__(self, pinned: bool = True) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        apart = pinned and len(allowed) > 1
        self.all = allowed
        self.servers = allowed[:-1] if apart else allowed
        self.clients = allowed[-1:] if apart else allowed

    def place(self, pid: int, cores: list[int]) -> None:
        """Move a process that runs, with all of its threads; what it starts from now on runs there as well."""
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)

    @contextlib.contextmanager
    def apart(self) -> Iterator[Cores]:
        """Start servers first, then call `clients_from_now`; at the end this process may run everywhere again."""
        self.place(os.getpid(), self.servers)
        try:
            yield self
        finally:
            self.place(os.getpid(), self.all)

    def clients_from_now(self) -> None:
        """Move this process to the core of clients."""
        self.place(os.getpid(), self.clients)
