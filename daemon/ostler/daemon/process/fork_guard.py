"""Makes a forked child of the daemon harmless: plugins fork (`os.fork`, `pty.fork`, `multiprocessing`).

A child has a copy of everything: the handlers of signals with the pipe that wakes the daemon's loop up, the very epoll
that the loop waits in, all sockets and locks. None of it may be used or held there. Descriptors are replaced by
`/dev/null`, not closed: objects that own their numbers are still around and would close what got those numbers next.

A fork that only runs another program (`subprocess` without `preexec_fn`) needs none of this: all descriptors of the
daemon close on exec.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ostler import fork
from ostler.config.paths import Paths

HANDLED_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""The signals that the daemon handles."""
_SYSTEMD_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_FD_DIRECTORY = "/proc/self/fd"
_FDINFO_DIRECTORY = "/proc/self/fdinfo"
_STDERR_FD = 2
_LEFT_WITHOUT_LOOP = "is not the running loop"
"""The end of the error that replaces the SystemExit of a task in a child from Python 3.14 on: no loop runs there."""


class ForkGuard:
    """Prepares the forked children of this process. One for a process: hooks of forks cannot be unregistered.

    Args:
        paths: Where the daemon's database and sockets are.
    """

    def __init__(self, paths: Paths) -> None:
        self._database = os.path.realpath(paths.database)
        self._lock_file = os.path.realpath(paths.database.with_suffix(".lock"))
        self._sockets = {str(paths.rpc_socket), str(paths.events_socket), os.environ.get("NOTIFY_SOCKET", "")} - {""}
        self._ports: set[int] = set()
        self._saved_signal_masks: dict[int, set[signal.Signals]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_active = False

    def install(self) -> None:
        """Have the interpreter call this at each fork from now on."""
        self._is_active = True
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )

    def remove(self) -> None:
        """Do nothing at forks from now on; for a process that continues without the daemon."""
        self._is_active = False

    def add_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep children from the loop's own descriptors and work."""
        self._loop = loop

    def add_sockets(self, descriptors: Iterable[int]) -> None:
        """Keep children from listening sockets that were handed over, and from what connects to them."""
        self._sockets.update(
            name for number in descriptors if isinstance(name := _socket_addresses(number)[0], str) and name
        )

    def add_ports(self, ports: Iterable[int]) -> None:
        """Keep children from TCP sockets of these ports, at either end."""
        self._ports.update(ports)

    # ---------------------------------------------------------------- called by the interpreter

    def _before_fork(self) -> None:
        # Until the child has put the handlers back, a signal that it gets would wake up the daemon's loop.
        if self._is_active:
            self._saved_signal_masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)  # type: ignore[assignment]

    def _after_fork_in_parent(self) -> None:
        if (mask := self._saved_signal_masks.pop(threading.get_ident(), None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _after_fork_in_child(self) -> None:
        if not self._is_active:
            return
        fork.in_child = True
        for step in (_reset_signals, self._detach_loop, self._replace_descriptors, _clear_environment, _clear_atexit):
            _run_step(step)
        self._after_fork_in_parent()

    def _detach_loop(self) -> None:
        """Detach from the daemon's loop: it must not run here, and its epoll is the parent's as well."""
        loop: Any = self._loop
        if loop is None or loop.is_closed():
            return
        own = select.epoll()
        os.dup2(own.fileno(), loop._selector.fileno(), inheritable=False)  # noqa: SLF001 - there is no other way to it
        own.close()
        _replace_with_devnull([loop._ssock.fileno(), loop._csock.fileno()])  # noqa: SLF001 - as above
        # Where the code of the plugin comes back to the loop, the process ends: with its error, or the next callback.
        loop.set_exception_handler(_exit_child_after_callback)
        ready = loop._ready  # noqa: SLF001 - as above
        count = len(ready)
        ready.clear()
        ready.extend(asyncio.Handle(_exit_child, (), loop) for _ in range(count + 1))

    def _replace_descriptors(self) -> None:
        open_now = map(int, os.listdir(_FD_DIRECTORY))  # noqa: PTH208 - there is no need of paths
        _replace_with_devnull(
            number for number in open_now if number > _STDERR_FD and self._is_daemon_descriptor(number)
        )

    def _is_daemon_descriptor(self, descriptor: int) -> bool:
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):
                return self._is_daemon_socket(descriptor)
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                path = os.readlink(f"{_FD_DIRECTORY}/{descriptor}")  # noqa: PTH115 - there is no need of a path
                return path.startswith((self._database, self._lock_file)) or _is_locked(descriptor)
        except OSError:  # the one that listed the directory
            pass
        return False

    def _is_daemon_socket(self, descriptor: int) -> bool:
        here, there = _socket_addresses(descriptor)
        if isinstance(here, tuple):
            return here[1] in self._ports or (isinstance(there, tuple) and there[1] in self._ports)
        return here in self._sockets or there in self._sockets


def _run_step(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - the other steps count as much, and the plugin's code continues
        os.write(2, f"a process forked by a plugin still holds resources of the daemon: {error!r}\n".encode())


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in HANDLED_SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _clear_atexit() -> None:
    atexit._clear()  # noqa: SLF001 - there is no public name for it


def _clear_environment() -> None:
    for name in _SYSTEMD_VARIABLES:
        os.environ.pop(name, None)


def _exit_child_after_callback(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if "handle" not in context:  # of an object that is collected while the plugin's code still runs
        loop.default_exception_handler(context)
        return
    error: BaseException | None = context["exception"]
    if isinstance(error, RuntimeError) and str(error).endswith(_LEFT_WITHOUT_LOOP):
        error = error.__context__
    fork.exit_child(error)


def _exit_child() -> None:
    fork.exit_child(sys.exc_info()[1])


def _replace_with_devnull(descriptors: Iterable[int]) -> None:
    wanted = list(descriptors)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in wanted:
        os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _socket_addresses(descriptor: int) -> tuple[Any, Any]:
    """Return the addresses of a socket: its own, and that of the other side; None for a missing one."""
    with socket.socket(fileno=os.dup(descriptor)) as found:
        if found.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            return None, None
        try:
            there = found.getpeername()
        except OSError:
            there = None
        return found.getsockname(), there


def _is_locked(descriptor: int) -> bool:
    """Return whether a lock of `flock` is held by this descriptor; it stays locked until the child closes it too."""
    with open(f"{_FDINFO_DIRECTORY}/{descriptor}", encoding="ascii") as details:  # noqa: PTH123 - read for each file at a fork
        return any(line.startswith("lock:") and "FLOCK" in line for line in details)
