"""The current step of a start or reload, for systemd and the log, with a time limit while plugins load."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ostler import log
from ostler.aio.optional_thread import start_optional_thread
from ostler.daemon.process.shutdown_watchdog import force_exit
from ostler.daemon.process.stack_dump import format_dump, thread_stacks
from ostler.systemd import ServiceNotifier
from ostler.time_text import format_duration, format_seconds

_log = logging.getLogger(__name__)
_STATUS_INTERVAL = 1.0
"""Seconds between two STATUS lines."""
_SLOW_STEP_THRESHOLD = 5.0
"""Seconds after which a step is logged."""
TIMEOUT_EXTENSION = 30.0
"""Seconds by which each STATUS line extends systemd's timeout."""
LOAD_TIMEOUT = 600.0
"""Seconds that loading plugins and configuration may take in all: `start_timeout` is not known before that."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class StepTracker:
    """The current step, and since when. Written by the thread that does the work, read by any.

    Args:
        activity: The name of the whole operation: `starting`.
        slow_threshold: Seconds after which a step is logged.
    """

    def __init__(self, activity: str, slow_threshold: float = _SLOW_STEP_THRESHOLD) -> None:
        self.activity = activity
        self._slow_threshold = slow_threshold
        self._current = ("", time.monotonic())
        self._last_logged = self._current

    def __call__(self, name: str) -> None:
        """Begin a step."""
        self._current = (name, time.monotonic())

    @property
    def current_step(self) -> str:
        """The current step, empty between two."""
        return self._current[0]

    def to_text(self) -> str:
        """Return a description of the current step."""
        name, since = self._current
        seconds = time.monotonic() - since
        lasts = f" for {format_duration(seconds)}" if seconds >= self._slow_threshold else ""
        return f"{self.activity}: {name}{lasts}" if name else self.activity

    def report(self, notifier: ServiceNotifier) -> None:
        """Notify systemd, and log each step once that takes long."""
        notifier.extend_timeout(TIMEOUT_EXTENSION, self.to_text())
        if self._last_logged is not self._current and time.monotonic() - self._current[1] >= self._slow_threshold:
            self._last_logged = self._current
            _log.warning("%s, and it has not returned yet", self.to_text())


class LoadingMonitor:
    """Reports progress and handles signals while the main thread imports plugins and may hang in one.

    Imports stay on the main thread: plugins may do things that work only there, and another thread would hold import
    locks that others need. The C handler of Python reacts to a signal at once, whatever the main thread waits for: it
    writes a byte to a descriptor, which a thread of this class reads.

    Args:
        step_tracker: The steps.
        notifier: Notifies systemd.
        defer_signal: Called with SIGHUP, and with signals that arrive too late to be handled here; on the main thread.
        exit_process: Ends the process with an exit code, after the log was written.
        timeout: Seconds that loading may take in all.
        status_interval: Seconds between two STATUS lines.
    """

    def __init__(
        self,
        step_tracker: StepTracker,
        notifier: ServiceNotifier,
        defer_signal: Callable[[int], None],
        exit_process: Callable[[int], None] = os._exit,
        *,
        timeout: float = LOAD_TIMEOUT,
        status_interval: float = _STATUS_INTERVAL,
    ) -> None:
        self._step_tracker = step_tracker
        self._notifier = notifier
        self._defer_signal = defer_signal
        self._exit_process = exit_process
        self._timeout = timeout
        self._status_interval = status_interval
        self._deadline = time.monotonic() + timeout
        self._read_end, self._write_end = socket.socketpair()
        self._write_end.setblocking(False)
        self._previous_wakeup_fd = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take over the signals. On the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        self._thread = start_optional_thread(self._run, "ostler-loading")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the descriptor; signals are buffered from here on."""
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        self._write_end.close()  # ends the thread
        if self._thread is not None:
            self._thread.join(self._status_interval)
        else:
            self._read_end.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGUSR2:
            self._defer_signal(number)

    def _run(self) -> None:
        with self._read_end:
            while True:
                ready, _, _ = select.select([self._read_end], [], [], self._status_interval)
                if not ready:
                    self._report()
                    continue
                numbers = self._read_end.recv(64)
                if not numbers:
                    return
                for number in numbers:
                    self._handle_signal(number)

    def _report(self) -> None:
        if time.monotonic() < self._deadline:
            self._step_tracker.report(self._notifier)
            return
        text = (
            f"{self._step_tracker.to_text()} did not return; the daemon gives up after {format_seconds(self._timeout)}"
        )
        self._notifier.status(text)
        _log.critical("%s", text, extra=log.message_id("start-failed"))
        force_exit([], 1, self._exit_process)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGUSR2:
            _log.warning("dump", extra=log.message_id("dump") | log.detail(format_dump(thread_stacks())))
        elif number in (signal.SIGTERM, signal.SIGINT):
            text = f"{signal.Signals(number).name} while {self._step_tracker.to_text()}; nothing was started"
            self._notifier.stopping(text)
            _log.info("%s", text, extra=log.message_id("stopped"))
            force_exit([], 0, self._exit_process)
