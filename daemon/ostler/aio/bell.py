"""A wake-up for a thread, by a descriptor."""

from __future__ import annotations

import os


class Bell:
    """Wakes one thread up, and lets go of the interpreter before it does.

    The release of a lock keeps the interpreter: where both share a core, the thread that is woken up runs at once,
    finds the interpreter taken, sleeps again and has to be woken up a second time. A system call lets go of it.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def make(cls) -> Bell | None:
        """Return a bell, None when there is no descriptor for it."""
        try:
            return cls(os.eventfd(0, os.EFD_CLOEXEC))
        except OSError:
            return None

    def ring(self) -> None:
        """Wake up the thread that waits, or the next that will."""
        os.eventfd_write(self._number, 1)

    def wait(self) -> None:
        """Wait until it rings."""
        os.eventfd_read(self._number)

    def __del__(self) -> None:
        """Free the descriptor, once no thread uses it."""
        os.close(self._number)
