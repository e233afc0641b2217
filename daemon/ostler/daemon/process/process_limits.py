"""Limits and settings of the process that are set before anything is opened."""

from __future__ import annotations

import resource
import sys
from typing import NamedTuple

from ostler.aio.optional_thread import start_optional_thread

_RESERVED_DESCRIPTORS = 48
"""Descriptors reserved for the daemon itself: an idle one with ports has 38."""
_DESCRIPTORS_PER_PEER = 3
_MIN_CONNECTIONS = 2
_SWITCH_INTERVAL = 0.00025
"""Seconds after which a computing thread yields to a waiting one; the interpreter's default is 5 ms."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it.

    libzmq aborts or spins when descriptors run out, and the soft limit of 1024 is soon reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def shorten_switch_interval() -> None:
    """Make computing threads yield to the loop sooner.

    The loop waits for its turn like any thread: with eight computing methods and turns of 5 ms, a call of an
    administrator takes ten times as long as with this setting.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)


_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 256 * 1024
"""Buffers of at least so many bytes are mappings of their own, returned to the system as soon as they are freed."""


def set_mmap_threshold() -> None:
    """Map large buffers one by one; on a thread, because it loads `ctypes`.

    glibc raises that limit up to 32 MiB with each large buffer that is freed, and retains what it then takes from its
    heap. Does nothing with another libc. Once per process is enough.
    """
    _call_libc("mallopt", _M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def trim_heap() -> None:
    """Make the allocator return freed memory; on a thread, because it may take a tenth of a second."""
    _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> None:
    def call() -> None:
        import ctypes  # 2 ms: a daemon without large messages never needs it

        try:
            getattr(ctypes.CDLL(None), name)(*arguments)
        except (OSError, AttributeError):
            return

    start_optional_thread(call, f"ostler-{name}")


class ConnectionLimits(NamedTuple):
    """The most connections on each unix socket, and from the network."""

    unix: int
    network: int


def connection_limits(max_connections: int, descriptors: int, *, network: bool, peers: int = 0) -> ConnectionLimits:
    """Return how many connections to allow, so that descriptors are left for the daemon's own work.

    Those are for the database, the log, a reload, and the links to other daemons. libzmq spins, and no request is
    answered, when there are none left.

    Args:
        max_connections: `max_connections`.
        descriptors: The limit of open files.
        network: Whether it listens on the network: connections there cost two descriptors until they are let in.
        peers: How many other daemons it keeps links to.
    """
    left = max(0, descriptors - _RESERVED_DESCRIPTORS - _DESCRIPTORS_PER_PEER * peers)
    unix = max(_MIN_CONNECTIONS, min(max_connections, left // (4 if network else 3)))
    return ConnectionLimits(unix, max(_MIN_CONNECTIONS, min(max_connections, (left - 2 * unix) // 3)))


def descriptor_limit() -> int:
    """Return the limit of open files of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; its peak where /proc cannot be read."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every status; Path costs more
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc is mounted, or no descriptor is left
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
