"""What a start or a reload is at: named for systemd and the log while it lasts, with a way out while plugins load."""

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
from ostler.daemon.dump import as_text, thread_stacks
from ostler.daemon.lastresort import leave_hard
from ostler.systemd import Notifier

_log = logging.getLogger(__name__)
_TELL_INTERVAL = 1.0
"""Seconds between two STATUS lines."""
_LONG = 5.0
"""Seconds after which a step is worth a line in the log."""
MORE_TIME = 30.0
"""Seconds more that systemd is asked for with each STATUS line."""
LOAD_LIMIT = 600.0
"""Seconds that plugins and the configuration may take to load in all: `start_timeout` stands in what is being read."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Steps:
    """The step that is under way, and since when. Written by the thread that does the work, read by any.

    Args:
        what: What consists of the steps, in words: `starting`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._now = ("", time.monotonic())
        self._said = self._now

    def __call__(self, name: str) -> None:
        """Begin a step."""
        self._now = (name, time.monotonic())

    @property
    def now(self) -> str:
        """The step, empty between two."""
        return self._now[0]

    def text(self) -> str:
        """Return what goes on, in words."""
        name, since = self._now
        seconds = time.monotonic() - since
        lasts = f" for {seconds:.0f} s" if seconds >= _LONG else ""
        return f"{self.what}: {name}{lasts}" if name else self.what

    def tell(self, notifier: Notifier) -> None:
        """Tell systemd, and the log once of each step that takes long."""
        notifier.extend_timeout(MORE_TIME, self.text())
        if self._said is not self._now and time.monotonic() - self._now[1] >= _LONG:
            self._said = self._now
            _log.warning("%s, and it has not come back yet", self.text())


class LoadingMonitor:
    """Tells how far the loading is, and takes the signals, while the main thread imports plugins and may hang in one.

    Imports stay on the main thread: plugins may set up there what works nowhere else, and a thread beside it would
    hold import locks that others need. What the kernel is told to do with a signal is done by the C code of Python at
    once, whatever the main thread waits for: it writes a byte to a descriptor, which a thread here reads.

    Args:
        steps: What goes on.
        notifier: Tells systemd.
        keep: Given SIGHUP, and signals that come too late to be taken here; on the main thread.
        leave: Ends the process with an exit code, after the log was written.
    """

    def __init__(
        self,
        steps: Steps,
        notifier: Notifier,
        keep: Callable[[int], None],
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._steps = steps
        self._notifier = notifier
        self._keep = keep
        self._leave = leave
        self._until = time.monotonic() + LOAD_LIMIT
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._earlier = -1
        self._thread = threading.Thread(target=self._run, name="ostler-loading", daemon=True)

    def __enter__(self) -> Self:
        """Take the signals over. On the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._came)
        self._earlier = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the descriptor to others; signals are kept from here on."""
        signal.set_wakeup_fd(self._earlier)
        self._writing.close()  # the thread reads the end
        self._thread.join(_TELL_INTERVAL)

    def _came(self, number: int, _frame: object) -> None:
        if number != signal.SIGUSR2:
            self._keep(number)

    def _run(self) -> None:
        with self._reading:
            while True:
                ready, _, _ = select.select([self._reading], [], [], _TELL_INTERVAL)
                if not ready:
                    self._tell()
                    continue
                numbers = self._reading.recv(64)
                if not numbers:
                    return
                for number in numbers:
                    self._take(number)

    def _tell(self) -> None:
        if time.monotonic() < self._until:
            self._steps.tell(self._notifier)
            return
        text = f"{self._steps.text()} has not come back; the daemon gives up after {LOAD_LIMIT:g} s"
        self._notifier.status(text)
        _log.critical("%s", text, extra=log.event("start-failed"))
        leave_hard([], 1, self._leave)

    def _take(self, number: int) -> None:
        if number == signal.SIGUSR2:
            _log.warning("dump", extra=log.event("dump") | log.detail(as_text(thread_stacks())))
        elif number in (signal.SIGTERM, signal.SIGINT):
            text = f"{signal.Signals(number).name} while {self._steps.text()}; nothing was started"
            self._notifier.stopping(text)
            _log.info("%s", text, extra=log.event("stopped"))
            leave_hard([], 0, self._leave)
