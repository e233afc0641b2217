"""Which cores servers run on, and which clients."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
