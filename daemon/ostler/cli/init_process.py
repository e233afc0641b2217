"""The command as process 1 of a container.

The kernel treats process 1 specially: signals have no default action, so that SIGTERM does nothing until there is a
handler, and orphans of the whole container become its children and must be reaped. A process that does nothing else
handles both, and the command runs in a child. The daemon itself must not reap orphans: it cannot tell them from its own
children, whose exit codes `subprocess`, `asyncio` and `multiprocessing` need.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_NOT_FORWARDED = {
    signal.SIGKILL, signal.SIGSTOP,  # cannot be caught
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS,  # own
    signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT,  # job control; there is no shell
}  # fmt: skip
_SI_KERNEL = 0x80
"""`si_code` of a signal from the terminal: the child, in the same process group, has received it as well."""
_LISTEN_FDS_START = 3


def fork_and_supervise() -> None:
    """Fork; return in the child, while the parent stays here and supervises it.

    Must be called in process 1, before a second thread exists.
    """
    signals = {int(number) for number in signal.valid_signals() if number not in _NOT_FORWARDED}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        _close_activation_sockets()
        forward_signals_and_reap(child, signals)
    for name in ("LISTEN_PID", "WATCHDOG_PID"):  # they name this process, and the program now runs in another
        if os.environ.get(name) == "1":
            os.environ[name] = str(os.getpid())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forward_signals_and_reap(child: int, signals: set[int]) -> NoReturn:
    """Forward signals, reap every child that exits, and exit as the main child does.

    Args:
        child: The process that does the work.
        signals: The signals that are blocked here, to be forwarded.
    """
    while True:
        info = signal.sigwaitinfo(signals | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            status = _reap_children(child)
            if status is not None:
                _exit_like_child(child, status)
        elif info.si_code != _SI_KERNEL:
            os.kill(child, info.si_signo)  # not yet reaped, so that its pid cannot have been reused


def _reap_children(child: int) -> int | None:
    """Reap all children that have exited; return the status of the main child if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        if pid == child:
            found = status


def _exit_like_child(child: int, status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, _killed_message(child, -code))
        except (OSError, ValueError):  # nobody can be notified
            pass
    os._exit(code if code >= 0 else 128 - code)


def _killed_message(child: int, number: int) -> bytes:
    return f"ostler: the process {child} was killed by {signal.Signals(number).name}\n".encode()


def _close_activation_sockets() -> None:
    """Close the sockets of socket activation here, so that they are closed once the daemon closes them."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") == "1" and count.isdecimal():
        os.closerange(_LISTEN_FDS_START, _LISTEN_FDS_START + int(count))
