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


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every status; Path costs more
        return int(statm.read().split()[1]) * resource.getpagesize()
