"""Descriptors 0 to 2, before anything else is opened."""

from __future__ import annotations

import os
import sys


def open_standard_descriptors() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed.

    Otherwise the next file to be opened, such as a database or a socket, would get that number, and output for stdout
    or stderr would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel takes the lowest free number, which is this one: the lower ones are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python creates no stream for a descriptor that was closed.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process exits
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            made = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, made)
