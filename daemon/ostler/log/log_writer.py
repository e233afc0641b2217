"""The queue of the log and the one thread that writes it: code that logs never waits for a disk, a pipe or journald."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from ostler.time_text import format_moment

MAX_QUEUE_LINES = 10_000
MAX_QUEUE_BYTES = 8 * 1024 * 1024
"""What may wait to be written; further lines are dropped and counted."""
_POLL_INTERVAL = 1.0
"""Seconds between two checks for changes of this process's logging."""
_STALL_TIMEOUT = 1.0
"""Seconds that one line may take before a flush gives up, and the status says that nobody reads the log."""
_FLUSH_POLL_INTERVAL = 0.05
_QUEUE_FULL_REASON = "they came faster than they could be written"


class LogTarget(Protocol):
    """Where lines are written to. On the thread of the writer, except in a forked child."""

    is_direct: bool
    """Whether it never blocks and is written by who logs: a stream in memory."""

    def send(self, line: LogLine) -> None:
        """Write one line; may block.

        Raises:
            OSError: It could not be written.
        """
        ...

    def problem(self) -> str:
        """Return why lines do not go where they should; empty when they do. Any thread."""
        ...


class LogLine(NamedTuple):
    """One line that is ready to be written, redacted already.

    Args:
        target: Where it goes.
        data: Its bytes.
        fallback: The same for standard error, when the target is journald and that cannot be reached.
    """

    target: LogTarget
    data: bytes
    fallback: bytes = b""


class LostLines(NamedTuple):
    """What was lost: how many lines in all, and of the last time: how many lines, from and until when, and why."""

    total: int = 0
    last_count: int = 0
    last_from: float = 0.0
    last_until: float = 0.0
    last_reason: str = ""

    def describe(self) -> str:
        """Return the last loss in words."""
        began, ended = (format_moment(at) for at in (self.last_from, self.last_until))
        return f"{self.last_count} lines of the log could not be written, from {began} to {ended} ({self.last_reason})"


class LogWriter:
    """Writes lines in their order on a thread of its own. Any thread; nothing but `flush` blocks.

    The lock is reentrant and held for a few counters only: a finaliser or a signal handler may log at any moment. A
    forked child has neither the thread nor what waits; it finds a new lock, and writes its lines itself.

    Args:
        max_lines: How many lines may wait to be written; further ones are dropped and counted.
    """

    def __init__(self, max_lines: int = MAX_QUEUE_LINES) -> None:
        self.make_line: Callable[[logging.LogRecord], LogLine] | None = None
        """Makes a line of a record; for the line that says what was lost."""
        self.on_poll: Callable[[], None] | None = None
        """Called each second, on the thread of the writer; must not block."""
        self.poll_failure = ""
        """With what the last look at other loggers failed; empty when it did not."""
        self.losses = LostLines()
        self._is_loss_reported = True
        self._lock = threading.RLock()
        self._queue: SimpleQueue[LogLine | threading.Event] = SimpleQueue()
        self._max_lines = max_lines
        self._queued_lines = self._queued_bytes = 0
        self._accepted_count = self._processed_count = self._loss_at = 0
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._is_forked = False
        self._writing_since = 0.0
        self._next_poll = 0.0

    def enqueue(self, line: LogLine) -> None:
        """Queue a line, or drop and count it when the queue is full."""
        if self._pid != os.getpid():
            self._after_fork()
        if self._is_forked or line.target.is_direct:
            self._write(line)
            return
        with self._lock:
            size = _line_size(line)
            if self._queued_lines >= self._max_lines or (
                self._queued_lines and self._queued_bytes + size > MAX_QUEUE_BYTES
            ):
                self.count_lost(_QUEUE_FULL_REASON)
                return
            self._queued_lines, self._queued_bytes, self._accepted_count = (
                self._queued_lines + 1,
                self._queued_bytes + size,
                self._accepted_count + 1,
            )
            self._queue.put(line)
        if self._thread is None:
            self._start()

    def count_lost(self, reason: str) -> None:
        """Count a line that is lost."""
        with self._lock:
            now = time.time()
            total, count, since, _, _ = self.losses
            if self._is_loss_reported:
                self._is_loss_reported, self._loss_at, count, since = False, self._accepted_count, 0, now
            self.losses = LostLines(total + 1, count + 1, since, now, reason)

    def stalled_time(self) -> float:
        """Return for how many seconds the line that is being written has not come to its end; 0 when all is well."""
        since = self._writing_since
        seconds = time.monotonic() - since if since else 0.0
        return seconds if seconds >= _STALL_TIMEOUT else 0.0

    @property
    def is_loss_reported(self) -> bool:
        """Whether the log itself says what was lost."""
        return self._is_loss_reported

    @property
    def queued_count(self) -> int:
        """How many lines wait to be written."""
        return self._queued_lines

    def flush(self, timeout: float) -> bool:
        """Wait until everything that was queued is written; return whether it is. Gives up early when nobody reads."""
        if self._pid != os.getpid():
            return True
        if self._thread is None:
            self._write_queued()
            return True
        reached = threading.Event()
        self._queue.put(reached)
        until = time.monotonic() + timeout
        while not reached.wait(_FLUSH_POLL_INTERVAL):
            if time.monotonic() >= until or self.stalled_time() or not self._thread.is_alive():
                return False
        return True

    def _write_queued(self) -> None:
        """Write what is queued on this thread, because there was none for it."""
        with suppress(Empty):
            while True:
                self._process(self._queue.get_nowait())

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = thread = threading.Thread(
                target=_run_thread, args=(weakref.ref(self), self._queue), name="ostler-log", daemon=True
            )
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no thread can be had now; the next line tries again
            self._thread = None

    def _after_fork(self) -> None:
        """Record that this is a forked child: the writer's thread does not exist here, and may have held the lock."""
        self._pid, self._is_forked, self._thread = os.getpid(), True, None
        self._lock, self._queue = threading.RLock(), SimpleQueue()
        self._queued_lines = self._queued_bytes = 0
        self._is_loss_reported, self.losses = True, LostLines()

    # ---------------------------------------------------------------- on the thread of the writer

    def write_next(self, item: LogLine | threading.Event | None) -> None:
        """Write what the thread of the writer took from the queue, None if there was nothing for a second."""
        if item is None or self._process(item):
            self._poll()

    def _process(self, item: LogLine | threading.Event) -> bool:
        """Write a line, or notify who waits for all before it; return whether it was a line."""
        if isinstance(item, threading.Event):
            self._report_losses()
            item.set()
            return False
        self._write(item)
        with self._lock:
            self._queued_lines, self._queued_bytes = self._queued_lines - 1, self._queued_bytes - _line_size(item)
            self._processed_count += 1
        if self._queue.empty():
            self._report_losses()
        return True

    def _write(self, line: LogLine) -> None:
        """Write a line, after the one that says what was lost before it."""
        if self._processed_count >= self._loss_at and not self._report_losses():
            self.count_lost(self.losses.last_reason)
            return
        self._send(line)

    def _send(self, line: LogLine) -> bool:
        self._writing_since = time.monotonic()
        try:
            line.target.send(line)
        except Exception as error:  # noqa: BLE001 - whatever a stream raises must not end this thread
            self.count_lost(getattr(error, "strerror", None) or type(error).__name__)
            return False
        finally:
            self._writing_since = 0.0
        return True

    def _report_losses(self) -> bool:
        """Write what was lost, if that has not been said yet; return whether nothing is left to be said."""
        if self._is_loss_reported or self.make_line is None:
            return True
        losses = self.losses
        record = logging.LogRecord("ostler.log", logging.WARNING, __file__, 0, "%s", (losses.describe(),), None)
        try:
            line = self.make_line(record)
            self._writing_since = time.monotonic()
            line.target.send(line)
        except Exception:  # noqa: BLE001 - it still cannot be written
            return False
        finally:
            self._writing_since = 0.0
        with self._lock:
            if self.losses == losses:
                self._is_loss_reported = True
            else:  # more were lost meanwhile
                self.losses = self.losses._replace(
                    last_count=self.losses.last_count - losses.last_count, last_from=losses.last_until
                )
        return True

    def _poll(self) -> None:
        now = time.monotonic()
        if self.on_poll is None or now < self._next_poll:
            return
        self._next_poll = now + _POLL_INTERVAL
        try:
            self.on_poll()
        except Exception as error:  # noqa: BLE001 - the log must continue whatever the check of other loggers raises
            self.poll_failure = type(error).__name__
        else:
            self.poll_failure = ""


def _run_thread(reference: weakref.ref[LogWriter], queue: SimpleQueue[LogLine | threading.Event]) -> None:
    """Write what is queued for as long as the writer exists, and then what is left.

    It holds the writer only while it writes: a process in which the log is set up again and again (tests) would be left
    with a thread for each.
    """
    while True:
        item: LogLine | threading.Event | None = None
        with suppress(Empty):
            item = queue.get(timeout=_POLL_INTERVAL)
        writer = reference()
        if writer is not None:
            writer.write_next(item)
        elif isinstance(item, LogLine):
            with suppress(Exception):  # there is nobody left to count it
                item.target.send(item)
        else:
            return
        del writer


def _line_size(line: LogLine) -> int:
    return len(line.data) + len(line.fallback)
