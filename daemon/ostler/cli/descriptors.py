"""Descriptors 0 to 2, before anything else is opened."""

from __future__ import annotations

import os
import sys


def open_standard_descriptors() -> None:
    """Open /dev/null in place of each of the descriptors 0 to 2 that is closed.

    What is opened next would get its number otherwise: a database or a socket, into which the next line for stdout or
    stderr would be written.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one: those before it have been looked at.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has made none of these for a descriptor that was closed.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            made = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, made)
