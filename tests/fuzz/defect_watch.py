"""What holds for every target: nothing is raised where nobody catches it, and nothing is logged as a defect."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Self

_LOGGERS = ("ostler", "asyncio")


class DefectFound(AssertionError):
    """Raised when something does not hold."""


class DefectWatch(logging.Handler):
    """Collects what must not happen, while it is entered: tracebacks in the log, errors that nobody caught."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.lines = 0

    def __enter__(self) -> Self:
        # What is logged ends here: who keeps all lines (pytest does) would grow by them.
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).propagate = False
        self._hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = lambda what: self.found.append(f"unraisable: {what.exc_value!r} in {what.object!r}")
        threading.excepthook = lambda what: self.found.append(f"in a thread: {what.exc_value!r}")
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()
        sys.unraisablehook, threading.excepthook = self._hooks
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)
            logging.getLogger(name).propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self.lines += 1
        if record.exc_info or record.levelno >= logging.ERROR:
            text = logging.Formatter().format(record)
            self.found.append(f"logged: {text}")

    def on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Collect what reaches the loop as well."""

        def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            self.found.append(f"on the loop: {context.get('message')}: {context.get('exception')!r}")

        loop.set_exception_handler(handle)

    def check(self) -> None:
        """Raise what was found."""
        if self.found:
            raise DefectFound(self.found[0])


def memory() -> int:
    """Return the bytes of memory that this process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path for each costs more than the count


def same(what: str, found: object, wanted: object) -> None:
    """Check that two are equal.

    Raises:
        Wrong: They are not.
    """
    if found != wanted:
        raise DefectFound(f"{what}: {found!r}, not {wanted!r}")
