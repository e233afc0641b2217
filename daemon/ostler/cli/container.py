"""The command as process 1 of a container.

The kernel treats process 1 in its own way: signals have no default there, so that SIGTERM does nothing before somebody
handles it, and orphans of the whole container become its children, to be reaped. Both are looked after by a process
that does nothing else, and the command runs in a child: who reaped in the daemon itself would take the exit codes from
`subprocess`, `asyncio` and `multiprocessing`, for nobody can tell an orphan from a child.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_KEPT = {
    signal.SIGKILL, signal.SIGSTOP,  # cannot be taken
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS,  # own
    signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT,  # of a shell's jobs; there is no shell
}  # fmt: skip
_BY_KERNEL = 0x80
"""`si_code` of a signal from the terminal: the child, in the same group of processes, has got it as well."""
_FIRST_HANDED_OVER = 3


def supervise() -> None:
    """Run the rest of the program in a child, and return there; the caller stays behind to look after it.

    To be called in process 1, before there is a second thread.
    """
    signals = {int(number) for number in signal.valid_signals() if number not in _KEPT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        _close_handed_over()
        look_after(child, signals)
    for name in ("LISTEN_PID", "WATCHDOG_PID"):  # said for this program, which is another process now
        if os.environ.get(name) == "1":
            os.environ[name] = str(os.getpid())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def look_after(child: int, signals: set[int]) -> NoReturn:
    """Pass signals on, reap whatever ends, and end as the child does.

    Args:
        child: The process that does the work.
        signals: Those that are blocked here, to be passed on.
    """
    while True:
        info = signal.sigwaitinfo(signals | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                _end(child, status)
        elif info.si_code != _BY_KERNEL:
            os.kill(child, info.si_signo)  # not yet reaped, so that its number is nobody else's


def _reap(child: int) -> int | None:
    """Reap all that has ended; return the status of the child if it is among them."""
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


def _end(child: int, status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, _killed(child, -code))
        except (OSError, ValueError):  # there is nobody to tell
            pass
    os._exit(code if code >= 0 else 128 - code)


def _killed(child: int, number: int) -> bytes:
    return f"ostler: the process {child} was killed by {signal.Signals(number).name}\n".encode()


def _close_handed_over() -> None:
    """Close the sockets of socket activation here: they are to be closed when the daemon closes them."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") == "1" and count.isdecimal():
        os.closerange(_FIRST_HANDED_OVER, _FIRST_HANDED_OVER + int(count))
