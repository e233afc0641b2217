"""What the process asks of the kernel and the interpreter before anything is opened."""

from __future__ import annotations

import resource
import sys
from typing import NamedTuple

_OWN = 48
"""Descriptors of a daemon without connections, and some for its work: an idle one with ports has 38."""
_OF_PEER = 3
_LEAST = 2
_SWITCH_INTERVAL = 0.00025
"""Seconds after which a thread that computes gives way to one that wants to run; the interpreter's own is 5 ms."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it.

    libzmq aborts or spins when descriptors run out, and the soft limit of 1024 is soon reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def shorten_thread_turns() -> None:
    """Have threads that compute give way to the loop sooner.

    The loop waits for its turn like any thread: beside eight methods that compute, and with turns of 5 ms, a call of an
    administrator takes ten times as long as with these.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


_M_MMAP_THRESHOLD = -3
_MAPPED = 256 * 1024
"""Bytes of a buffer from which on it is a mapping of its own, which goes back to the system as soon as it is freed."""


def map_large_buffers() -> None:
    """Have large buffers mapped one by one; on a thread, for it loads `ctypes`.

    glibc raises that limit by itself up to 32 MiB with each large buffer that is freed, and keeps what it then takes
    from its heap. Where there is another libc, nothing is done. Once a process is enough.
    """
    _call_libc("mallopt", _M_MMAP_THRESHOLD, _MAPPED)


def return_freed_memory() -> None:
    """Have the allocator give back what was freed; on a thread, for it may take a tenth of a second."""
    _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> None:
    import threading

    def call() -> None:
        import ctypes

        try:
            getattr(ctypes.CDLL(None), name)(*arguments)
        except (OSError, AttributeError):
            return

    threading.Thread(target=call, name=f"ostler-{name}", daemon=True).start()


class ConnectionLimits(NamedTuple):
    """How many connections there may be on each unix socket, and from the network."""

    unix: int
    network: int


def connection_limits(wanted: int, descriptors: int, *, network: bool, peers: int = 0) -> ConnectionLimits:
    """Return how many connections there may be, so that descriptors are left for the daemon's own work.

    Those are for the database, the log, a reload, and the links to other daemons. libzmq spins, and nobody is answered,
    when there are none left.

    Args:
        wanted: `max_connections`.
        descriptors: How many files the process may have open.
        network: Whether it listens on the network: connections there cost two descriptors until they are let in.
        peers: How many other daemons it keeps links to.
    """
    left = max(0, descriptors - _OWN - _OF_PEER * peers)
    unix = max(_LEAST, min(wanted, left // (4 if network else 3)))
    return ConnectionLimits(unix, max(_LEAST, min(wanted, (left - 2 * unix) // 3)))


def descriptor_limit() -> int:
    """Return how many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes; where /proc cannot be read, the most that it ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every status; Path costs more
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc is mounted, or no descriptor is left
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
