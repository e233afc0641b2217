"""The end of the process, after the daemon has stopped: leftovers of plugins must not delay it.

The interpreter would wait without a limit for every non-daemon thread, for executors, and for functions registered
with `atexit`. Here all of that gets a short time. What is still running then is logged, and the process ends; the
lock on the state is held until then.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from ostler.aio.optional_thread import start_optional_thread
from ostler.daemon.process.shutdown_watchdog import force_exit
from ostler.printable import printable

_log = logging.getLogger(__name__)
MAX_EXIT_WAIT = 2.0
"""Seconds that threads and `atexit` get at most: they are not asked to end, so longer waits do not help."""
MIN_EXIT_WAIT = 0.25
THREADS_STEP = "waiting for threads"
ATEXIT_STEP = "a function registered with atexit"
_MAX_COMMAND_LENGTH = 120
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class ExitOutcome(msgspec.Struct, frozen=True):
    """How a daemon ended: the exit code, what hung in the stop, and the seconds left of the stop's time."""

    code: int
    stuck_parts: list[str]
    time_left: float = MAX_EXIT_WAIT


class ProcessExit:
    """Ends the process, in time and with the right exit code.

    Args:
        outcome: How the daemon ended.
        exit_process: Ends the process at once; `os._exit` outside of tests.
        steps: The steps before the end, by name. On the main thread.
        find_children: Names the child processes that are left.
    """

    def __init__(
        self,
        outcome: ExitOutcome,
        *,
        exit_process: Callable[[int], None] = os._exit,
        steps: Mapping[str, Callable[[], None]] | None = None,
        find_children: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._outcome = outcome
        self._timeout = min(max(outcome.time_left, MIN_EXIT_WAIT), MAX_EXIT_WAIT)
        self._exit_process = exit_process
        self._find_children = find_children or remaining_children
        self._steps = {THREADS_STEP: wait_for_threads, ATEXIT_STEP: run_atexit} if steps is None else steps
        self._step = "closing the event loop"
        self._exit_lock = threading.Lock()
        self._done = threading.Event()
        self._stuck_tasks: list[str] = []

    def run(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Close the loop, wait for threads and `atexit`, log what is still running, and exit. On the main thread.

        Args:
            loop: The daemon's loop, which is not running any longer; None when there was none.
        """
        # On a thread of its own: the following steps may block this one.
        start_optional_thread(self._enforce_timeout, "ostler-exit")
        if loop is not None:
            self._stuck_tasks = close_loop(loop, self._timeout / 2, self._install_signal_handlers)
        for name, step in self._steps.items():
            self._step = name
            step()
        self._done.set()
        self._exit_once()

    def _enforce_timeout(self) -> None:
        if not self._done.wait(self._timeout):
            self._exit_once(cut_off=self._step)

    def _install_signal_handlers(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._exit_once(cut_off=self._step)

    def _exit_once(self, cut_off: str = "") -> None:
        if self._exit_lock.acquire(blocking=False):  # once: two threads may get here at the same moment
            step = [] if cut_off in ("", THREADS_STEP) else [f"{cut_off}{_thread_location(threading.main_thread())}"]
            running = [*remaining_threads(), *self._find_children()]
            left = [*self._outcome.stuck_parts, *self._stuck_tasks, *step, *running]
            force_exit(left, self._outcome.code, self._exit_process)


def close_loop(
    loop: asyncio.AbstractEventLoop, timeout: float, install_signal_handlers: Callable[[], None]
) -> list[str]:
    """Cancel the tasks that are left, and close the loop; return the tasks that did not end within `timeout`.

    Args:
        loop: The loop, not running.
        timeout: For the tasks of plugins.
        install_signal_handlers: Sets the signal handlers for the time after; until then the daemon's signals are
            blocked.
    """
    left = _cancel_tasks(loop, timeout)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        loop.close()  # resets its signals to their defaults, which would end the process with another exit code
        install_signal_handlers()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return left


def _cancel_tasks(loop: asyncio.AbstractEventLoop, timeout: float) -> list[str]:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()

    async def finish() -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        await asyncio.wait([asyncio.ensure_future(loop.shutdown_asyncgens())], timeout=timeout)

    loop.run_until_complete(finish())
    return [f"task {task.get_name()}" for task in tasks if not task.done()]


def wait_for_threads() -> None:
    """Wait as the interpreter does at its end: for non-daemon threads, including executors."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name for it


def run_atexit() -> None:
    """Run what was registered with `atexit`."""
    atexit.unregister(logging.shutdown)  # runs last, after the last line of the log
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public name for it


def remaining_threads() -> Iterator[str]:
    """Yield the threads that would keep the process alive, and where they are. Any thread."""
    for thread in threading.enumerate():
        if not thread.daemon and thread not in (threading.current_thread(), threading.main_thread()):
            target = getattr(thread, "_target", None)
            runs = f" ({target.__module__}.{target.__qualname__})" if inspect.isroutine(target) else ""
            yield printable(f"thread {thread.name}{runs}{_thread_location(thread)}")


def _thread_location(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to see other threads
    stack = [f"{Path(entry.filename).name}:{entry.lineno} {entry.name}" for entry in traceback.extract_stack(frame)]
    return f", at {' < '.join(reversed(stack[-3:]))}" if frame is not None else ""


def remaining_children() -> Iterator[str]:
    """Yield the child processes that are still running. Any thread."""
    for children in Path("/proc/self/task").glob("*/children"):
        for number in _read_text(children).split():
            state = _read_text(Path(f"/proc/{number}/stat")).rpartition(")")[2].split()[:1]
            if state and state[0] not in "ZX":  # one that has ended and was not reaped
                command = _read_text(Path(f"/proc/{number}/cmdline")).replace("\0", " ").strip()
                yield printable(f"process {number} ({command[:_MAX_COMMAND_LENGTH] or 'without a command line'})")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:  # it has ended meanwhile
        return ""
