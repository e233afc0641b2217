"""A bounded pool of named daemon threads."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ostler.errors import Busy, Draining

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Running(NamedTuple):
    """One piece of work in a thread: its label, the thread's name, and for how many seconds it has run."""

    label: str
    thread: str
    seconds: float


class _Job(NamedTuple):
    number: int
    label: str
    work: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    context: contextvars.Context


class Worker(threading.Thread):
    """A thread of a pool; `pool` says whose, for those who look at all threads (a dump, virtual time)."""

    def __init__(self, pool: WorkerPool, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.pool = pool


class WorkerPool:
    """A bounded pool of named daemon threads whose errors are never lost.

    The standard pool holds up the exit of the process until its threads return; these are daemon threads, so that a
    driver hung in a native call cannot. Threads are started as they are needed. Work that raises anything, SystemExit
    included, harms only itself: the error goes to `done`, and to the log if `done` itself fails.

    Args:
        name: Prefix of the threads' names: `name-1`, `name-2`.
        size: The most threads.
        queue_limit: The most jobs that wait; one more is refused.
    """

    def __init__(self, name: str, size: int, queue_limit: int = 1000) -> None:
        self.name = name
        self.size = size
        self.queue_limit = queue_limit
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[Worker] = []
        self._running: dict[int, tuple[str, str, float]] = {}
        self._in_flight: set[int] = set()
        self._thread_numbers = itertools.count(1)
        self._job_numbers = itertools.count(1)
        self._idle = 0
        self._closed = False

    def submit(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None], *, label: str
    ) -> None:
        """Queue `work`; `done(result, error)` runs on the worker's thread when it has ended. Any thread.

        The caller's context variables go along.

        Raises:
            Busy: The queue is full.
            Draining: The pool has been closed.
        """
        job = _Job(next(self._job_numbers), label, work, done, contextvars.copy_context())
        with self._changed:
            if self._closed:
                raise Draining(f"{self.name} takes no new work, it is being stopped", pool=self.name)
            if len(self._queue) >= self.queue_limit:
                raise Busy(
                    f"the queue of {self.name} is full ({self.queue_limit} waiting)",
                    hint="try again in a second, or raise its `workers`",
                    pool=self.name,
                    retry_after=1.0,
                )
            self._queue.append(job)
            self._in_flight.add(job.number)
            if self._idle < len(self._queue) and len(self._threads) < self.size:
                self._start_thread()
            else:
                self._changed.notify()

    async def run(self, work: Callable[[], T], *, label: str) -> T:
        """Run `work` in the pool and wait for it on the loop. A cancelled wait does not stop the thread.

        Raises:
            Busy: The queue is full.
            Draining: The pool has been closed.
            Exception: Whatever `work` raised. SystemExit and KeyboardInterrupt come as RuntimeError: asyncio would
                let them stop the loop.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled() or future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(contained(error))

        def done(result: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop has closed meanwhile; nobody waits any more
                _log.debug("%s ended after the loop had closed", label)

        self.submit(work, done, label=label)
        return await future

    def relabel(self, label: str) -> None:
        """Say what the job on this thread is at now, for a job that does several things. On the pool's threads."""
        with self._changed:
            _, thread, _ = self._running[threading.get_ident()]
            self._running[threading.get_ident()] = (label, thread, time.monotonic())

    def running(self) -> list[Running]:
        """Return what the threads are doing now, longest first. Any thread."""
        now = time.monotonic()
        with self._changed:
            rows = [Running(label, thread, now - since) for label, thread, since in self._running.values()]
        return sorted(rows, key=lambda row: -row.seconds)

    @property
    def queued(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._queue)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return sum(thread.is_alive() for thread in self._threads)

    def in_flight(self) -> frozenset[int]:
        """Return the numbers of the jobs that wait, run, or whose end is being reported. Any thread."""
        with self._changed:
            return frozenset(self._in_flight)

    def close(self) -> list[str]:
        """Take no new work and let the threads end; return the labels of what waited, whose `done` gets `Draining`."""
        with self._changed:
            self._closed = True
            dropped, self._queue = list(self._queue), deque()
            self._changed.notify_all()
        for job in dropped:
            self._finish(job, None, Draining(f"{self.name} was stopped before {job.label} had begun", pool=self.name))
        return [job.label for job in dropped]

    def join(self, timeout: float) -> list[Running]:
        """Wait up to `timeout` seconds for the threads to end after `close`; return what still runs."""
        until = time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return self.running()

    def _start_thread(self) -> None:
        thread = Worker(self, self._work, f"{self.name}-{next(self._thread_numbers)}")
        self._threads.append(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached
            self._threads.remove(thread)
            if not self._threads:
                self._in_flight.discard(self._queue.pop().number)
                raise Busy(
                    f"{self.name} cannot start a thread", hint="raise TasksMax or free memory", retry_after=5.0
                ) from None
            _log.warning("%s cannot start another thread and goes on with %d", self.name, len(self._threads))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            result, error = None, None
            try:
                result = job.context.run(job.work)
            except BaseException as raised:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
                error = raised
            with self._changed:
                del self._running[threading.get_ident()]
            self._finish(job, result, error)
            # Keep nothing alive while waiting for the next job.
            del job, result, error

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._queue:
                    if self._closed:
                        return None
                    self._changed.wait()
            finally:
                self._idle -= 1
            # Taken and entered in one step: `running` and `in_flight` never miss a job between queue and thread.
            job = self._queue.popleft()
            thread = threading.current_thread()
            self._running[threading.get_ident()] = (job.label, thread.name, time.monotonic())
            return job

    def _finish(self, job: _Job, result: Any, error: BaseException | None) -> None:
        try:
            job.done(result, error)
        except BaseException:  # noqa: BLE001 - reported, and the thread goes on
            _log.exception("the end of %s in %s could not be reported (its error: %r)", job.label, self.name, error)
        with self._changed:
            self._in_flight.discard(job.number)


def contained(error: BaseException) -> Exception:
    """Return the error as one that asyncio and the loop survive: SystemExit and its like become RuntimeError."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} was raised: {error}")
    wrapped.__cause__ = error
    return wrapped
