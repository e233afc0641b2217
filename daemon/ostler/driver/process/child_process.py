"""The process of a driver as the daemon sees it: started with exec, watched by a descriptor, ended as a group."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, cast

from ostler.log.masking import is_secret_name
from ostler.redaction import SECRETS

_DAEMON_VARIABLES = (
    "NOTIFY_SOCKET",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
)
_DAEMON_PREFIXES = ("WATCHDOG_", "LISTEN_", "FDSTORE")
_DEATH_TIMEOUT = 5.0
"""Seconds in which a process that closed its sockets, or was killed, ends."""


class ChildProcess:
    """A driver's process: a new interpreter in a session of its own, with nothing of the daemon's but three sockets.

    The kernel kills it when the thread that created this ends; that has to be the loop's.

    Args:
        title: What is shown in the list of processes: `TOPIC/NAME`.
        loop: The loop that learns of its end.
        on_exit: Called with how it ended, once, on the loop; its group has been killed then.

    `control` and `doorbell` are the daemon's ends of its sockets, `stdout` and `stderr` what it prints.

    Raises:
        OSError: It cannot be started: no memory, descriptors or processes.
    """

    def __init__(self, title: str, loop: asyncio.AbstractEventLoop, on_exit: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._kill_reason = ""
        self._outcome = ""
        self.control, theirs = socket.socketpair()
        self.doorbell, bell = socket.socketpair()
        with theirs, bell:
            try:
                self._start(title, theirs, bell)
            except BaseException:
                self._close_sockets()
                raise
        self.pid = self._process.pid
        loop.add_reader(self._pidfd, self._on_pidfd)

    def _start(self, title: str, control: socket.socket, doorbell: socket.socket) -> None:
        numbers = control.fileno(), doorbell.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ostler.driver.process", title, *map(str, numbers), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=numbers,
            start_new_session=True,
            env=child_environment(os.environ),
        )
        # Both are there, see above; the type says that they may not be.
        self.stdout, self.stderr = cast("IO[bytes]", self._process.stdout), cast("IO[bytes]", self._process.stderr)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def outcome(self) -> str:
        """How it ended, as the end of a sentence; empty while it runs. Any thread."""
        return self._outcome

    @property
    def is_killed(self) -> bool:
        """Whether `kill` was called. Any thread."""
        return bool(self._kill_reason)

    def kill(self, why: str) -> None:
        """Kill it and everything in its session. Any thread.

        Args:
            why: The reason, as a sentence: it is reported as the way it ended.
        """
        with self._lock:
            if not self._outcome:
                self._kill_reason = self._kill_reason or why
                self._kill_group()

    def wait_outcome(self) -> str:
        """Return how it ended, for a thread that has seen the end of its socket; one that does not end is killed."""
        for _ in range(2):
            if (outcome := self._poll_outcome()) or (outcome := self._wait(_DEATH_TIMEOUT)):
                return outcome
            self.kill("it closed the connection to the daemon")
        return "does not end although it was killed"

    def _wait(self, seconds: float) -> str:
        try:
            waiter = select.poll()
            waiter.register(self._pidfd, select.POLLIN)
            waiter.poll(seconds * 1000)
        except (OSError, ValueError):  # closed meanwhile: it has ended
            pass
        return self._poll_outcome()

    def _poll_outcome(self) -> str:
        """Return how it ended, empty while it runs; leaves it to be collected."""
        with self._lock:
            if self._outcome:
                return self._outcome
            try:
                found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:  # a plugin has collected it
                return self._kill_reason or "ended, its exit status is unknown"
            return "" if found is None else self._describe(found.si_code, found.si_status)

    def _describe(self, code: int, status: int) -> str:
        if self._kill_reason:
            return f"was killed: {self._kill_reason}"
        if code == os.CLD_EXITED:
            return f"exited with status {status}"
        try:
            name = signal.Signals(status).name
        except ValueError:
            name = f"signal {status}"
        by = ", by the kernel for lack of memory or by somebody else" if status == signal.SIGKILL else ""
        return f"was killed by {name}{by}"

    def _on_pidfd(self) -> None:
        self._loop.remove_reader(self._pidfd)
        outcome = self._poll_outcome() or "ended, its exit status is unknown"
        with self._lock:
            # Before it is collected: until then nobody else can get its number.
            self._kill_group()
            self._outcome = outcome
            self._process.poll()
            os.close(self._pidfd)
        self._on_exit(outcome)

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nothing is left in it, or only what has another user now
            return

    def close(self) -> None:
        """Close what leads to it. After its end, on the loop."""
        self._close_sockets()
        self.stdout.close()
        self.stderr.close()

    def _close_sockets(self) -> None:
        self.control.close()
        self.doorbell.close()


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the process of a driver: those of the daemon without systemd's, and without secrets."""
    return {
        **{name: value for name, value in environment.items() if not _is_withheld(name, value)},
        "MALLOC_ARENA_MAX": environment.get("MALLOC_ARENA_MAX", "2"),
    }


def _is_withheld(name: str, value: str) -> bool:
    if name in _DAEMON_VARIABLES or name.startswith(_DAEMON_PREFIXES):
        return True
    return is_secret_name(name) or SECRETS.redact(value) != value
