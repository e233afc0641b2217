"""Makes a forked child of the daemon harmless: plugins fork (`os.fork`, `pty.fork`, `multiprocessing`).

A child has a copy of everything: the handlers of signals with the pipe that wakes the daemon's loop up, the very epoll
that the loop waits in, all sockets and locks. None of it may be used or held there. Descriptors are replaced by
`/dev/null`, not closed: objects that own their numbers are still around and would close what got those numbers next.

What is only forked to run another program (`subprocess` without `preexec_fn`) comes past none of this: everything of
the daemon's closes on exec.
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

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Those that the daemon handles."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_DESCRIPTORS = "/proc/self/fd"
_DETAILS = "/proc/self/fdinfo"
_STDERR = 2


class ForkGuard:
    """Prepares the forked children of this process. One for a process: what is registered cannot be taken back.

    Args:
        paths: Where the daemon's database and sockets are.
    """

    def __init__(self, paths: Paths) -> None:
        self._database = os.path.realpath(paths.database)
        self._lock_file = os.path.realpath(paths.database.with_suffix(".lock"))
        self._sockets = {str(paths.rpc_socket), str(paths.events_socket), os.environ.get("NOTIFY_SOCKET", "")} - {""}
        self._ports: set[int] = set()
        self._masks: dict[int, set[signal.Signals]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._active = False

    def install(self) -> None:
        """Have the interpreter call this at each fork from now on."""
        self._active = True
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def remove(self) -> None:
        """Do nothing at forks any more; for a process that goes on without the daemon."""
        self._active = False

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep children from the loop's own descriptors and work."""
        self._loop = loop

    def add_sockets(self, descriptors: Iterable[int]) -> None:
        """Keep children from listening sockets that were handed over, and from what connects to them."""
        self._sockets.update(name for number in descriptors if isinstance(name := _names(number)[0], str) and name)

    def add_ports(self, ports: Iterable[int]) -> None:
        """Keep children from TCP sockets of these ports, at either end."""
        self._ports.update(ports)

    # ---------------------------------------------------------------- called by the interpreter

    def _before(self) -> None:
        # Until the child has put the handlers back, a signal that it gets would wake up the daemon's loop.
        if self._active:
            self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # type: ignore[assignment]

    def _in_parent(self) -> None:
        if (mask := self._masks.pop(threading.get_ident(), None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _in_child(self) -> None:
        if not self._active:
            return
        fork.in_child = True
        for step in (_reset_signals, self._leave_loop, self._drop_descriptors, _forget_environment, _forget_atexit):
            _attempt(step)
        self._in_parent()

    def _leave_loop(self) -> None:
        """Part with the daemon's loop: it must not run here, and its epoll is the parent's as well."""
        loop: Any = self._loop
        if loop is None or loop.is_closed():
            return
        own = select.epoll()
        os.dup2(own.fileno(), loop._selector.fileno(), inheritable=False)  # noqa: SLF001 - there is no other way to it
        own.close()
        _replace([loop._ssock.fileno(), loop._csock.fileno()])  # noqa: SLF001 - as above
        # Where the code of the plugin comes back to the loop, the process ends: with the next callback, whichever.
        ready = loop._ready  # noqa: SLF001 - as above
        count = len(ready)
        ready.clear()
        ready.extend(asyncio.Handle(_came_back, (), loop) for _ in range(count + 1))

    def _drop_descriptors(self) -> None:
        open_now = map(int, os.listdir(_DESCRIPTORS))  # noqa: PTH208 - there is no need of paths
        _replace(number for number in open_now if number > _STDERR and self._is_ours(number))

    def _is_ours(self, number: int) -> bool:
        try:
            mode = os.fstat(number).st_mode
            if stat.S_ISSOCK(mode):
                return self._is_our_socket(number)
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                path = os.readlink(f"{_DESCRIPTORS}/{number}")  # noqa: PTH115 - there is no need of a path
                return path.startswith((self._database, self._lock_file)) or _is_locked(number)
        except OSError:  # the one that listed the directory
            pass
        return False

    def _is_our_socket(self, number: int) -> bool:
        here, there = _names(number)
        if isinstance(here, tuple):
            return here[1] in self._ports or (isinstance(there, tuple) and there[1] in self._ports)
        return here in self._sockets or there in self._sockets


def _attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - the other steps count as much, and the plugin's code goes on
        os.write(2, f"a forked process of a plugin keeps something of the daemon's: {error!r}\n".encode())


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _forget_atexit() -> None:
    atexit._clear()  # noqa: SLF001 - there is no public name for it


def _forget_environment() -> None:
    for name in _VARIABLES:
        os.environ.pop(name, None)


def _came_back() -> None:
    fork.leave(sys.exc_info()[1])


def _replace(descriptors: Iterable[int]) -> None:
    wanted = list(descriptors)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in wanted:
        os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _names(number: int) -> tuple[Any, Any]:
    """Return the addresses of a socket: its own, and that of the other side; None for one that it has not."""
    with socket.socket(fileno=os.dup(number)) as found:
        if found.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            return None, None
        try:
            there = found.getpeername()
        except OSError:
            there = None
        return found.getsockname(), there


def _is_locked(number: int) -> bool:
    """Return whether a lock of `flock` is held by this descriptor; it would be until the child has closed it too."""
    with open(f"{_DETAILS}/{number}", encoding="ascii") as details:  # noqa: PTH123 - read for each file at a fork
        return any(line.startswith("lock:") and "FLOCK" in line for line in details)
