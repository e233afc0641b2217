"""The queue of the log and the one thread that writes it: who logs never waits for a disk, a pipe or journald."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

QUEUE_LINES = 10_000
QUEUE_BYTES = 8 * 1024 * 1024
"""What may wait to be written; further lines are dropped and counted."""
_POLL_INTERVAL = 1.0
"""Seconds between two looks at whether somebody has changed how this process logs."""
_STALLED = 1.0
"""Seconds that one line may take before a flush gives up, and the status says that nobody reads the log."""
_SLICE = 0.05
_FULL = "they came faster than they could be written"


class Target(Protocol):
    """Where lines are written to. On the thread of the writer, except in a forked child."""

    direct: bool
    """Whether it never blocks and is written by who logs: a stream in memory."""

    def send(self, line: Line) -> None:
        """Write one line; may block.

        Raises:
            OSError: It could not be written.
        """
        ...

    def problem(self) -> str:
        """Return why lines do not go where they should; empty when they do. Any thread."""
        ...


class Line(NamedTuple):
    """One line that is ready to be written, redacted already.

    Args:
        target: Where it goes.
        data: Its bytes.
        fallback: The same for standard error, when the target is journald and that cannot be reached.
    """

    target: Target
    data: bytes
    fallback: bytes = b""


class Losses(NamedTuple):
    """What was lost: how many lines in all, and of the last time: how many lines, from and until when, and why."""

    total: int = 0
    lines: int = 0
    since: float = 0.0
    until: float = 0.0
    why: str = ""

    def text(self) -> str:
        """Return the last loss in words."""
        began, ended = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (self.since, self.until))
        return f"{self.lines} lines of the log could not be written, from {began} to {ended} ({self.why})"


class LogWriter:
    """Writes lines in their order on a thread of its own. Any thread; nothing but `flush` blocks.

    The lock is reentrant and held for a few counters only: a finaliser or a signal handler may log at any moment. A
    forked child has neither the thread nor what waits; it finds a new lock, and writes its lines itself.
    """

    def __init__(self) -> None:
        self.prepare: Callable[[logging.LogRecord], Line] | None = None
        """Makes a line of a record; for the line that says what was lost."""
        self.on_poll: Callable[[], None] | None = None
        """Called each second, on the thread of the writer; must not block."""
        self.poll_failure = ""
        """With what the last look at other loggers failed; empty when it did not."""
        self.losses = Losses()
        self._told = True
        self._lock = threading.RLock()
        self._queue: SimpleQueue[Line | threading.Event] = SimpleQueue()
        self._lines = self._bytes = 0
        self._accepted = self._processed = self._loss_at = 0
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._forked = False
        self._writing_since = 0.0
        self._next_poll = 0.0

    def put(self, line: Line) -> None:
        """Queue a line, or drop and count it when the queue is full."""
        if self._pid != os.getpid():
            self._after_fork()
        if self._forked or line.target.direct:
            self._write(line)
            return
        with self._lock:
            size = _size(line)
            if self._lines >= QUEUE_LINES or (self._lines and self._bytes + size > QUEUE_BYTES):
                self.lose(_FULL)
                return
            self._lines, self._bytes, self._accepted = self._lines + 1, self._bytes + size, self._accepted + 1
            self._queue.put(line)
        if self._thread is None:
            self._start()

    def lose(self, why: str) -> None:
        """Count a line that is lost."""
        with self._lock:
            now = time.time()
            total, count, since, _, _ = self.losses
            if self._told:
                self._told, self._loss_at, count, since = False, self._accepted, 0, now
            self.losses = Losses(total + 1, count + 1, since, now, why)

    def stalled(self) -> float:
        """Return for how many seconds the line that is being written has not come to its end; 0 when all is well."""
        since = self._writing_since
        seconds = time.monotonic() - since if since else 0.0
        return seconds if seconds >= _STALLED else 0.0

    @property
    def told(self) -> bool:
        """Whether the log itself says what was lost."""
        return self._told

    @property
    def waiting(self) -> int:
        """How many lines wait to be written."""
        return self._lines

    def flush(self, seconds: float) -> bool:
        """Wait until everything that was queued is written; return whether it is. Gives up early when nobody reads."""
        if self._thread is None or self._pid != os.getpid():
            return True
        reached = threading.Event()
        self._queue.put(reached)
        until = time.monotonic() + seconds
        while not reached.wait(_SLICE):
            if time.monotonic() >= until or self.stalled() or not self._thread.is_alive():
                return False
        return True

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = thread = threading.Thread(target=self._run, name="ostler-log", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no thread can be had now; the next line tries again
            self._thread = None

    def _after_fork(self) -> None:
        """Take note that this is a forked child: nobody writes here, and a thread that is gone may hold the lock."""
        self._pid, self._forked, self._thread = os.getpid(), True, None
        self._lock, self._queue = threading.RLock(), SimpleQueue()
        self._lines = self._bytes = 0
        self._told, self.losses = True, Losses()

    # ---------------------------------------------------------------- on the thread of the writer

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=_POLL_INTERVAL)
            except Empty:
                self._poll()
                continue
            if isinstance(item, threading.Event):
                self._tell()
                item.set()
                continue
            self._write(item)
            with self._lock:
                self._lines, self._bytes = self._lines - 1, self._bytes - _size(item)
                self._processed += 1
            if self._queue.empty():
                self._tell()
            self._poll()

    def _write(self, line: Line) -> None:
        """Write a line, after the one that says what was lost before it."""
        if self._processed >= self._loss_at and not self._tell():
            self.lose(self.losses.why)
            return
        self._send(line)

    def _send(self, line: Line) -> bool:
        self._writing_since = time.monotonic()
        try:
            line.target.send(line)
        except Exception as error:  # noqa: BLE001 - whatever a stream raises harms nobody
            self.lose(getattr(error, "strerror", None) or type(error).__name__)
            return False
        finally:
            self._writing_since = 0.0
        return True

    def _tell(self) -> bool:
        """Write what was lost, if that has not been said yet; return whether nothing is left to be said."""
        if self._told or self.prepare is None:
            return True
        losses = self.losses
        record = logging.LogRecord("ostler.log", logging.WARNING, __file__, 0, "%s", (losses.text(),), None)
        try:
            line = self.prepare(record)
            self._writing_since = time.monotonic()
            line.target.send(line)
        except Exception:  # noqa: BLE001 - it still cannot be written
            return False
        finally:
            self._writing_since = 0.0
        with self._lock:
            if self.losses == losses:
                self._told = True
            else:  # more were lost meanwhile
                self.losses = self.losses._replace(lines=self.losses.lines - losses.lines, since=losses.until)
        return True

    def _poll(self) -> None:
        now = time.monotonic()
        if self.on_poll is None or now < self._next_poll:
            return
        self._next_poll = now + _POLL_INTERVAL
        try:
            self.on_poll()
        except Exception as error:  # noqa: BLE001 - the log goes on whatever a look at other loggers finds
            self.poll_failure = type(error).__name__
        else:
            self.poll_failure = ""


def _size(line: Line) -> int:
    return len(line.data) + len(line.fallback)
