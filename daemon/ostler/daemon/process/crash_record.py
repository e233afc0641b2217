"""Records how the process crashed, for the next start: the stack of the thread that crashed it.

A crash leaves no time for anything: `faulthandler` writes the stacks from the signal handler, to a file of this process
that is removed at a regular end. The next start logs what it finds there, and knows whose code ran.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ostler.files import make_directory

DIRECTORY_NAME = "crashes"
_MAX_REPORT_SIZE = 256 * 1024
_MODE = 0o700
_STATE_MODE = 0o700
_FATAL_PREFIX = "Fatal Python error: "
_EXIT_TEXT = "os._exit({}) was called"
_CRASHED_THREAD_PREFIXES = ("Current thread ", "Stack (most recent call first)")
_FRAME = re.compile(r'^  File "(.*)", line ([0-9?]+) in (.*)$')


class StackFrame(msgspec.Struct, frozen=True):
    """A line of a stack: file, number of the line, function."""

    file: str
    line: str
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"


class CrashReport(msgspec.Struct, frozen=True):
    """A crash of an earlier process: when (wall time), how, the stack of its thread, innermost first, all its text."""

    at: float
    how: str
    stack: list[StackFrame]
    text: str


class CrashRecorder:
    """Has the stacks of a crash written to a file of this process, instead of to standard error.

    Fatal signals are recorded (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL), also that of systemd's watchdog, and calls of
    `os._exit` by code that is not Ostler's. SIGKILL leaves no trace, and is nobody's fault.

    Args:
        state_dir: The state directory; the file is below it.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / DIRECTORY_NAME
        self._is_state_new = False
        self.earlier: list[CrashReport] = []
        """The crashes of earlier processes, found by `open`."""
        self._pid = os.getpid()
        self._path: Path | None = None
        self._descriptor = -1
        self._exit = os._exit

    def open(self) -> bool:
        """Take what earlier processes have left, and create the file of this one.

        Returns whether it could be created: else crashes are written to standard error, as before.
        """
        self.earlier = _collect_crashes(self._directory)  # before: a process does not see its own lock
        try:
            if not _is_own(self._directory.parent):
                return False
            self._is_state_new = make_directory(self._directory.parent, _STATE_MODE)
            make_directory(self._directory, _MODE)
            path = self._directory / f"{time.time_ns()}-{self._pid}.txt"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND
            self._descriptor = os.open(path, flags, 0o600)
            # Of POSIX: no child inherits it, so that it says whether this process lives.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self._path = path
        faulthandler.enable(self._descriptor)
        os.register_at_fork(after_in_child=self._on_fork_in_child)
        self._exit = os._exit
        os._exit = self._recorded_exit
        return True

    def close(self) -> None:
        """Remove the file: the process ends regularly. Crashes are written to standard error from now on."""
        if self._path is None:
            return
        self._restore()
        with suppress(OSError):
            self._path.unlink()
            self._directory.rmdir()
            if self._is_state_new:  # a daemon that could not start leaves nothing behind
                self._directory.parent.rmdir()
        self._path = None

    def _restore(self) -> None:
        faulthandler.enable(sys.__stderr__ or 2)
        os._exit = self._exit

    def _on_fork_in_child(self) -> None:
        """A child that crashes is not the daemon: the file says nothing of it."""
        if self._path is not None:
            self._path = None
            self._restore()

    def _recorded_exit(self, status: int) -> Any:
        # By the package of the caller: the daemon's own ends are regular.
        caller = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001 - there is no public name for it
        if self._path is not None and str(caller).partition(".")[0] != "ostler":
            with suppress(OSError):
                os.write(self._descriptor, f"{_EXIT_TEXT.format(status)}\n\n".encode())
                faulthandler.dump_traceback(self._descriptor, all_threads=False)
        self._exit(status)


def _collect_crashes(directory: Path) -> list[CrashReport]:
    """Return the crashes of earlier processes, the oldest first, and remove their files. Raises nothing."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names alone are needed
    except OSError:
        return []
    return [report for name in names if (report := _take_report(directory / name)) is not None]


def _take_report(path: Path) -> CrashReport | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails as long as its process lives
        text = os.read(descriptor, _MAX_REPORT_SIZE).decode("utf-8", "replace")
        at = os.fstat(descriptor).st_mtime
        path.unlink()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return parse_report(text, at) if text.strip() else None


def parse_report(text: str, at: float) -> CrashReport:
    """Return what a file says of a crash; what cannot be understood has no stack."""
    how = text.partition("\n")[0].removeprefix(_FATAL_PREFIX).strip()
    return CrashReport(at, how, list(_crashed_stack(text.splitlines())), text)


def _crashed_stack(lines: list[str]) -> Iterator[StackFrame]:
    is_inside = False
    for line in lines:
        if line.startswith(_CRASHED_THREAD_PREFIXES):
            is_inside = True
        elif is_inside:
            found = _FRAME.match(line)
            if found is None:
                return
            yield StackFrame(*found.groups())


def _is_own(directory: Path) -> bool:
    """Return whether nobody but root and this user can have put something there; one that is missing is created."""
    try:
        status = directory.stat()
    except FileNotFoundError:
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
