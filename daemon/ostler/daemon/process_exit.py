"""The end of the process, after the daemon has stopped: nothing that plugins leave behind may hold it up.

The interpreter would wait for every thread that is no daemon thread, for executors, and for what was registered with
`atexit`, without a limit. Here all of that gets a short while. What is still there then is named in the log, and the
process ends; with it goes the lock on the state, which is held until then.
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from ostler.daemon.lastresort import leave_hard
from ostler.printable import printable

_log = logging.getLogger(__name__)
LONGEST = 2.0
"""Seconds that threads and `atexit` get at most: nobody tells them to end, so that longer waits bring nothing."""
SHORTEST = 0.25
WAITING = "waiting for threads"
AT_EXIT = "a function registered with atexit"
_COMMAND_SHOWN = 120
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Outcome(msgspec.Struct, frozen=True):
    """How a daemon ended: the exit code, what hung in the stop, and the seconds left of the time that a stop has."""

    code: int
    hung: list[str]
    seconds: float = LONGEST


class ProcessEnd:
    """Ends the process, in time and with the right exit code.

    Args:
        outcome: How the daemon ended.
        leave: Ends the process at once; `os._exit` outside of tests.
        steps: What is done before, by what it is called while it lasts. On the main thread.
    """

    def __init__(
        self,
        outcome: Outcome,
        *,
        leave: Callable[[int], None] = os._exit,
        steps: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._outcome = outcome
        self._seconds = min(max(outcome.seconds, SHORTEST), LONGEST)
        self._leave = leave
        self._steps = {WAITING: wait_for_threads, AT_EXIT: run_atexit} if steps is None else steps
        self._step = "the end of the loop"
        self._left = threading.Lock()
        self._done = threading.Event()
        self._unfinished: list[str] = []

    def run(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Close the loop, give threads and `atexit` their time, say what is left behind, and leave. On the main thread.

        Args:
            loop: The daemon's, which does not run any more; None when there was none.
        """
        # On a thread of its own: whatever comes may block this one.
        threading.Thread(target=self._watch, name="ostler-exit", daemon=True).start()
        if loop is not None:
            self._unfinished = close_loop(loop, self._seconds / 2, self._take_signals)
        for name, step in self._steps.items():
            self._step = name
            step()
        self._done.set()
        self._end()

    def _watch(self) -> None:
        if not self._done.wait(self._seconds):
            self._end(cut_off=self._step)

    def _take_signals(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._end(cut_off=self._step)

    def _end(self, cut_off: str = "") -> None:
        if self._left.acquire(blocking=False):  # once: the watch and the main thread may come at the same moment
            step = [] if cut_off in ("", WAITING) else [f"{cut_off}{_where(threading.main_thread())}"]
            left = [*self._outcome.hung, *self._unfinished, *step, *threads_left(), *children_left()]
            leave_hard(left, self._outcome.code, self._leave)


def close_loop(loop: asyncio.AbstractEventLoop, seconds: float, take_signals: Callable[[], None]) -> list[str]:
    """Cancel the tasks that are left, and close the loop; return the tasks that did not end within `seconds`.

    Args:
        loop: It does not run.
        seconds: For the tasks of plugins.
        take_signals: Sets the handlers for the time after; until then no signal of the daemon's arrives.
    """
    left = _cancel_tasks(loop, seconds)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        loop.close()  # gives its signals back to their defaults, which would end the process with another exit code
        take_signals()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return left


def _cancel_tasks(loop: asyncio.AbstractEventLoop, seconds: float) -> list[str]:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()

    async def finish() -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await asyncio.wait([asyncio.ensure_future(loop.shutdown_asyncgens())], timeout=seconds)

    loop.run_until_complete(finish())
    return [f"task {task.get_name()}" for task in tasks if not task.done()]


def wait_for_threads() -> None:
    """Wait as the interpreter does at its end: for threads that are no daemon threads, executors among them."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name for it


def run_atexit() -> None:
    """Run what was registered with `atexit`."""
    atexit.unregister(logging.shutdown)  # comes last, when all is said
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public name for it


def threads_left() -> Iterator[str]:
    """Name the threads that would keep the process, and where they stand. Any thread."""
    for thread in threading.enumerate():
        if not thread.daemon and thread not in (threading.current_thread(), threading.main_thread()):
            target = getattr(thread, "_target", None)
            runs = f" ({target.__module__}.{target.__qualname__})" if inspect.isroutine(target) else ""
            yield printable(f"thread {thread.name}{runs}{_where(thread)}")


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to see other threads
    stack = [f"{Path(entry.filename).name}:{entry.lineno} {entry.name}" for entry in traceback.extract_stack(frame)]
    return f", at {' < '.join(reversed(stack[-3:]))}" if frame is not None else ""


def children_left() -> Iterator[str]:
    """Name the processes that this one has started and that still run. Any thread."""
    for children in Path("/proc/self/task").glob("*/children"):
        for number in _read(children).split():
            state = _read(Path(f"/proc/{number}/stat")).rpartition(")")[2].split()[:1]
            if state and state[0] not in "ZX":  # one that has ended and was not asked for its exit code
                command = _read(Path(f"/proc/{number}/cmdline")).replace("\0", " ").strip()
                yield printable(f"process {number} ({command[:_COMMAND_SHOWN] or 'without a command line'})")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:  # it has ended meanwhile
        return ""
