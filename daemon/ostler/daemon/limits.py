"""What the process asks of the kernel before anything is opened."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it.

    libzmq aborts or spins when descriptors run out, and the soft limit of 1024 is soon reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def return_freed_memory() -> None:
    """Have the allocator give back what was freed; on a thread, for it may take a tenth of a second.

    glibc keeps freed memory for itself as long as something above it is in use. Where there is another libc, nothing
    is done.
    """
    import threading

    threading.Thread(target=_trim, name="ostler-trim", daemon=True).start()


def _trim() -> None:
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every status; Path costs more
        return int(statm.read().split()[1]) * resource.getpagesize()
