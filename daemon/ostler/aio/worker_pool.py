"""A bounded pool of named daemon threads."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from ostler import fork
from ostler.aio.fair_queue import FairQueue
from ostler.aio.fair_quota import FairQuota
from ostler.bounds import safe_str, type_name
from ostler.errors import OWN_SHARE, Busy, Draining, is_a

_log = logging.getLogger(__name__)
T = TypeVar("T")


class RunningJob(msgspec.Struct, frozen=True):
    """One piece of work in a thread: its label, the thread's name, and for how many seconds it has run."""

    label: str
    thread: str
    seconds: float


_STANDBY_INTERVAL = 0.001
"""Seconds after which a running thread counts as busy with a long job."""
_SATURATION_RATIO = 0.8
"""The part of a core above which more threads only slow each other down."""
_MAX_REPLACED_THREADS = 1024
"""Threads of one pool that may be replaced while they wait; one cause of waiting gets half of them at most."""


class ThreadWakeup:
    """Wakes one thread up, and lets go of the interpreter before it does.

    The release of a lock keeps the interpreter: where both share a core, the thread that is woken up runs at once,
    finds the interpreter taken, sleeps again and has to be woken up a second time. A system call lets go of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def create(cls) -> ThreadWakeup | None:
        """Return a bell, None when there is no descriptor for it."""
        try:
            return cls(os.eventfd(0, os.EFD_CLOEXEC))
        except OSError:
            return None

    def wake(self) -> None:
        """Wake up the thread that waits, or the next that will."""
        os.eventfd_write(self._descriptor, 1)

    def wait(self) -> None:
        """Wait until it rings."""
        os.eventfd_read(self._descriptor)

    def __del__(self) -> None:
        """Free the descriptor, once no thread uses it."""
        os.close(self._descriptor)


class _Job(msgspec.Struct, frozen=True):
    number: int
    label: str
    work: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    context: contextvars.Context


class Worker(threading.Thread):
    """A thread of a pool; `pool` says whose, for those who look at all threads (a dump, virtual time)."""

    def __init__(self, pool: WorkerPool, pool_loop: Callable[[Worker], None], name: str) -> None:
        super().__init__(target=self._run_loop, name=name, daemon=True)
        self.pool = pool
        self.is_standby = False
        self.is_surplus = False
        self.gate = threading.Lock()
        self.gate.acquire()
        self._pool_loop = pool_loop

    def _run_loop(self) -> None:
        self._pool_loop(self)


class WorkerPool:
    """A bounded pool of named daemon threads whose errors are never lost.

    The standard pool delays the exit of the process until its threads return; these are daemon threads, so a driver
    hung in a native call cannot delay it. Work that raises anything, SystemExit included, affects only itself: the
    error goes to `done`, and to the log if `done` itself fails.

    Threads are started and woken as they are needed, and no more of them: only one can run Python at a time, so that
    eight that are woken for eight short jobs take several times as long as one that does all of them. While jobs wait,
    one thread stands by: it checks every millisecond, and takes a job when the busy threads make no progress, or
    wait outside of Python. A job that arrives while all have been busy for longer than that wakes another
    thread at once.

    Jobs of many clients are taken by turns; see `FairQueue`.

    A thread that waits for something that may never answer (`waiting_for`) is replaced: it does not count as one of
    `size` until it comes back. A thread that comes back while there are enough others ends after its job.

    Args:
        name: Prefix of the threads' names: `name-1`, `name-2`.
        size: The most threads at work; those that are replaced while they wait are not counted.
        queue_limit: The most jobs that wait; one more is refused.
        max_replaced: The most threads that are replaced while they wait; one cause of waiting gets half of them.
    """

    def __init__(
        self, name: str, size: int, queue_limit: int = 1000, *, max_replaced: int = _MAX_REPLACED_THREADS
    ) -> None:
        self.name = name
        self.size = size
        self._queue: FairQueue[_Job] = FairQueue(queue_limit)
        self._lock = threading.Lock()
        self._threads: list[Worker] = []
        self._idle_workers: list[Worker] = []
        self._standby: Worker | None = None
        self._wakeup: ThreadWakeup | None = None
        self._wakeup_waiter: Worker | None = None
        self._is_wakeup_sent = False
        self._is_wakeup_due = False
        self._running: dict[int, tuple[str, str, float]] = {}
        # Not part of `_threads` and `_running`: what decides about waking a thread up does not have to leave them out.
        self._replaced: dict[int, tuple[Worker, tuple[str, str, float]]] = {}
        self._replace_quota = FairQuota(max_replaced)
        self._in_flight: set[int] = set()
        self._thread_numbers = itertools.count(1)
        self._job_numbers = itertools.count(1)
        self._last_activity = 0.0
        self._finished_count = 0
        self._closed = False

    @property
    def queue_limit(self) -> int:
        """The most jobs that wait."""
        return self._queue.limit

    @queue_limit.setter
    def queue_limit(self, limit: int) -> None:
        self._queue.limit = limit

    def submit(
        self,
        work: Callable[[], T],
        done: Callable[[T | None, BaseException | None], None],
        *,
        label: str,
        client: Hashable = None,
        connection: Hashable = None,
        defer_wake: bool = False,
    ) -> None:
        """Queue `work`; `done(result, error)` runs on the worker's thread when it has ended. Any thread.

        The caller's context variables go along.

        Args:
            work: What is to be done.
            done: Called with how it ended.
            label: A description for people.
            client: The account that it belongs to; None for the daemon's own.
            connection: The connection of that account from which it comes.
            defer_wake: Do not wake a thread now; `wake` does so, for several jobs in a row.

        Raises:
            Busy: The queue is full, or this client has used its share of it.
            Draining: The pool has been closed.
        """
        job = _Job(next(self._job_numbers), label, work, done, contextvars.copy_context())
        with self._lock:
            if self._closed:
                raise Draining(f"{self.name} accepts no new work, it is being stopped", pool=self.name)
            if not self._queue.has_room(client, connection):
                raise self._full_error(client)
            self._queue.put(client, job, connection)
            self._in_flight.add(job.number)
            if defer_wake and self._threads:
                self._wakeup = self._wakeup or ThreadWakeup.create()
                return
            if not self._ensure_worker():
                self._in_flight.discard(self._queue.withdraw(client, connection).number)
                raise Busy(f"{self.name} cannot start a thread", hint="raise TasksMax or free memory", retry_after=5.0)
            ring = self._pop_due_wakeup()
        if ring is not None:
            ring.wake()

    def wake(self) -> None:
        """Wake threads for what was submitted with `later`. Any thread."""
        with self._lock:
            for _ in range(min(2, len(self._queue))):
                self._ensure_worker()
            ring = self._pop_due_wakeup()
        if ring is not None:
            ring.wake()  # without the lock: whoever is woken up needs it at once

    def _full_error(self, client: Hashable) -> Busy:
        waiting, limit = len(self._queue), self._queue.limit
        is_own = waiting < limit
        whose = f"{waiting} of {limit} waiting, this caller has used its share" if is_own else f"{waiting} waiting"
        return Busy(
            f"the queue of {self.name} is full ({whose})",
            hint="try again in a second, or raise its `workers`",
            pool=self.name,
            retry_after=1.0,
            reason=OWN_SHARE if is_own else "",
        )

    async def run(self, work: Callable[[], T], *, label: str, client: Hashable = None) -> T:
        """Run `work` in the pool and wait for it on the loop. A cancelled wait does not stop the thread.

        Args:
            work: What is to be done.
            label: A description for people.
            client: The account that it belongs to; None for the daemon's own.

        Raises:
            Busy: The queue is full, or this client has used its share of it.
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
                future.set_exception(as_exception(error))

        def done(result: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop has closed meanwhile; nobody waits any more
                _log.debug("%s completed after the loop had closed", label)

        self.submit(work, done, label=label, client=client)
        return await future

    def set_label(self, label: str) -> None:
        """Set what the job on this thread is doing now, for a job that does several things. On the pool's threads."""
        with self._lock:
            _, thread, _ = self._running[threading.get_ident()]
            self._running[threading.get_ident()] = (label, thread, time.monotonic())

    def running_jobs(self, *, include_replaced: bool = True) -> list[RunningJob]:
        """Return what the threads are doing now, longest first. Any thread.

        Args:
            include_replaced: Whether those that are replaced while they wait are included.
        """
        now = time.monotonic()
        with self._lock:
            found = [*self._running.values(), *(row for _, row in self._replaced.values() if include_replaced)]
        rows = [RunningJob(label, thread, now - since) for label, thread, since in found]
        return sorted(rows, key=lambda row: -row.seconds)

    def is_full(self) -> bool:
        """Return whether a job that comes now has to wait for a thread. Any thread."""
        return len(self._running) + len(self._queue) >= self.size

    @property
    def queued_count(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._queue)

    @property
    def thread_count(self) -> int:
        """How many threads there are."""
        with self._lock:
            every = [*self._threads, *(worker for worker, _ in self._replaced.values())]
        return sum(thread.is_alive() for thread in every)

    def in_flight_numbers(self) -> frozenset[int]:
        """Return the numbers of the jobs that wait, run, or whose end is being reported. Any thread."""
        with self._lock:
            return frozenset(self._in_flight)

    def close(self) -> list[str]:
        """Take no new work and let the threads end; return the labels of what waited, whose `done` gets `Draining`."""
        with self._lock:
            self._closed = True
            dropped = self._queue.clear()
            # Not the one that stands by: it checks on its own, and its gate may be open already.
            asleep, self._idle_workers = self._idle_workers, []
            self._is_wakeup_due = self._can_wake_waiter()
            self._is_wakeup_sent = self._is_wakeup_sent or self._is_wakeup_due
            ring, self._wakeup = self._pop_due_wakeup(), None  # whoever waits at it has it
        for worker in asleep:
            worker.gate.release()
        if ring is not None:
            ring.wake()
        for job in dropped:
            self._finish(job, None, Draining(f"{self.name} was stopped before {job.label} had started", pool=self.name))
        return [job.label for job in dropped]

    def join(self, timeout: float) -> list[RunningJob]:
        """Wait up to `timeout` seconds for the threads to end after `close`; return what still runs."""
        until = time.monotonic() + timeout
        with self._lock:
            every = [*self._threads, *(worker for worker, _ in self._replaced.values())]
        for thread in every:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return self.running_jobs()

    # ---------------------------------------------------------------- threads that wait

    def replace(self, worker: Worker, reason: Hashable) -> bool:
        """Have another thread work while this one waits; return False, and do nothing, when no more may be replaced.

        On the worker's thread, while it runs a job. See `waiting_for`.
        """
        me = threading.get_ident()
        with self._lock:
            if me in self._replaced or me not in self._running or not self._replace_quota.has_room(reason):
                return False
            self._replace_quota.acquire(reason)
            if not worker.is_surplus:
                self._threads.remove(worker)
            self._replaced[me] = worker, self._running.pop(me)
            if self._queue:
                self._wake_worker()
            ring = self._pop_due_wakeup()
        if ring is not None:
            ring.wake()
        return True

    def restore(self, worker: Worker, reason: Hashable) -> None:
        """Have a thread work again that was replaced; when there are enough others, it ends after its job.

        On the worker's thread.
        """
        me = threading.get_ident()
        with self._lock:
            self._replace_quota.release(reason)
            _, self._running[me] = self._replaced.pop(me)
            # One that ends is marked as standing by: that saves a check for each job.
            worker.is_surplus = worker.is_standby = len(self._threads) >= self.size
            if not worker.is_surplus:
                self._threads.append(worker)

    # ---------------------------------------------------------------- who is to wake up; with the lock held

    def _ensure_worker(self) -> bool:
        """Find a thread for a job that was just queued; return False when there is none and none can be started."""
        now = time.monotonic()
        up = len(self._threads) - len(self._idle_workers) - (self._standby is not None) - self._can_wake_waiter()
        if not up or now - self._last_activity > _STANDBY_INTERVAL:
            self._last_activity = now
            return self._wake_worker() or bool(self._threads)
        on_their_way = up - len(self._running)
        if self._standby is None and len(self._queue) > on_their_way:
            self._start_standby()
        return True

    def _can_wake_waiter(self) -> bool:
        return self._wakeup_waiter is not None and not self._is_wakeup_sent

    def _pop_due_wakeup(self) -> ThreadWakeup | None:
        """Return the bell if it is to be rung, which is done without the lock."""
        ring, self._is_wakeup_due = self._is_wakeup_due, False
        return self._wakeup if ring else None

    def _wake_worker(self) -> bool:
        if self._can_wake_waiter():
            self._is_wakeup_sent = self._is_wakeup_due = True
            return True
        if self._idle_workers:
            # The one that went to sleep last: what it needs is still in the caches.
            self._idle_workers.pop().gate.release()
            return True
        return self._start_thread()

    def _start_standby(self) -> None:
        if self._idle_workers:
            worker = self._standby = self._idle_workers.pop()
            worker.is_standby = True
            worker.gate.release()
        else:
            self._start_thread(is_standby=True)

    def _start_thread(self, *, is_standby: bool = False) -> bool:
        if len(self._threads) >= self.size:
            return False
        thread = Worker(self, self._worker_loop, f"{self.name}-{next(self._thread_numbers)}")
        thread.is_standby = is_standby
        self._threads.append(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached
            self._threads.remove(thread)
            if self._threads:
                _log.warning("%s cannot start another thread and continues with %d", self.name, len(self._threads))
            return False
        if is_standby:
            self._standby = thread
        return True

    # ---------------------------------------------------------------- on the threads

    def _worker_loop(self, worker: Worker) -> None:
        me = threading.get_ident()
        while (job := self._next_job(worker, me)) is not None:
            result, error = None, None
            try:
                result = job.context.run(job.work)
            except BaseException as raised:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
                error = raised
            if fork.in_child:
                fork.exit_child(error)
            with self._lock:
                del self._running[me]
            self._finish(job, result, error)
            # Keep nothing alive while waiting for the next job.
            del job, result, error

    def _next_job(self, worker: Worker, me: int) -> _Job | None:
        with self._lock:
            while worker.is_standby or not self._queue:
                if self._closed or worker.is_surplus:
                    return None
                if worker.is_standby:
                    worker.is_standby = self._wait_as_standby(worker)
                    continue
                self._sleep(worker)
            # Taken and entered in one step: `running` and `in_flight` never miss a job between queue and thread.
            job = self._queue.pop()
            self._last_activity = now = time.monotonic()
            self._running[me] = (job.label, worker.name, now)
            return job

    def _sleep(self, worker: Worker) -> None:
        """Wait at the bell if no thread does, else at the thread's own gate; releases the lock meanwhile."""
        bell = self._wakeup if self._wakeup_waiter is None else None
        if bell is not None:
            self._wakeup_waiter = worker
        else:
            self._idle_workers.append(worker)
        self._lock.release()
        try:
            if bell is not None:
                bell.wait()
            else:
                worker.gate.acquire()
        finally:
            self._lock.acquire()
            if bell is not None:
                self._wakeup_waiter, self._is_wakeup_sent = None, False

    def _wait_as_standby(self, worker: Worker) -> bool:
        """Stand by for a moment while others work; return whether to keep waiting."""
        finished, used, since = self._finished_count, time.process_time(), time.monotonic()
        self._lock.release()
        try:
            worker.gate.acquire(timeout=_STANDBY_INTERVAL)
        finally:
            self._lock.acquire()
        if self._closed:
            return False
        if self._queue:
            busy = time.process_time() - used >= _SATURATION_RATIO * (time.monotonic() - since)
            if busy and self._finished_count != finished:
                return True
        self._standby = None
        if len(self._queue) > 1:
            self._start_standby()
        return False

    def _finish(self, job: _Job, result: Any, error: BaseException | None) -> None:
        try:
            job.done(result, error)
        except BaseException:  # noqa: BLE001 - reported, and the thread goes on
            _log.exception(
                "the result of %s in %s could not be delivered (its error: %s)", job.label, self.name, safe_str(error)
            )
        with self._lock:
            self._finished_count += 1
            self._in_flight.discard(job.number)


@contextmanager
def waiting_for(reason: Hashable) -> Iterator[bool]:
    """Let another thread of the pool work while this one waits inside the block for something that may never answer.

    So jobs that wait for one thing cannot occupy all threads. For waits of more than some
    milliseconds; on a thread that is none of a pool, nothing happens. Any thread.

    Args:
        reason: What is waited for. The waits for one thing may use half of what is left of the threads that may wait.

    Yields:
        Whether the thread is replaced; if not, it counts as being at work while it waits.
    """
    worker = threading.current_thread()
    if not isinstance(worker, Worker) or not worker.pool.replace(worker, reason):
        yield False
        return
    try:
        yield True
    finally:
        worker.pool.restore(worker, reason)


def as_exception(error: BaseException) -> Exception:
    """Return the error as one that asyncio and the loop survive: SystemExit and its like become RuntimeError."""
    if is_a(error, Exception) and not is_a(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type_name(error)} was raised: {safe_str(error)}")
    wrapped.__cause__ = error
    return wrapped
