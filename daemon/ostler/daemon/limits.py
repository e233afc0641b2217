"""What the process asks of the kernel and the interpreter before anything is opened."""

from __future__ import annotations

import resource
import sys

_SWITCH_INTERVAL = 0.0005
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


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every status; Path costs more
        return int(statm.read().split()[1]) * resource.getpagesize()
