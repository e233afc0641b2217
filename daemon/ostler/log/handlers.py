"""Handlers that never harm who logs: a line that cannot be written is counted, and that is said later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TextIO

from ostler.log.fields import ABOUT, About


class SafeHandler(logging.Handler):
    """The base of our handlers: writes a line, or counts it as lost; nothing ever reaches who logs.

    How many were lost is said before the next line that can be written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.levelled: set[str] = set()
        """Loggers that were given levels when this handler was set up, for the next set-up to undo."""
        self.about: Callable[[], About | None] | None = None
        """Tells the request that the calling thread or task serves; asked for each line, wherever that comes from."""
        self._untold = 0

    def write(self, record: logging.LogRecord) -> bool:
        """Write one line; return whether that went. The handler's lock is held."""
        raise NotImplementedError

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, after the one that says how many were lost before it."""
        try:
            if self.about is not None:
                setattr(record, ABOUT, self.about())
            if self._untold and self.write(_losses(self._untold)):
                self._untold = 0
            if self.write(record):
                return
        except Exception:  # noqa: BLE001, S110 - a formatter that fails harms nobody either; where could it be logged?
            pass
        self.lost += 1
        self._untold += 1


def _losses(count: int) -> logging.LogRecord:
    text = "%d lines of the log could not be written"
    return logging.LogRecord("ostler.log", logging.WARNING, __file__, 0, text, (count,), None)


class SafeStreamHandler(SafeHandler):
    """Writes lines to a stream and survives anything: a full disk, a closed stream, a reader that went away.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, record: logging.LogRecord) -> bool:
        """Write one line and flush it; see `SafeHandler.write`."""
        text = self.format(record) + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError, RuntimeError):
            return False
        return True
