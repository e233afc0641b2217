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
from ostler.aio.fair import FairQueue
from ostler.aio.shares import Shares
from ostler.bounds import text_of, type_name_of
from ostler.errors import Busy, Draining, is_a

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Running(msgspec.Struct, frozen=True):
    """One piece of work in a thread: its label, the thread's name, and for how many seconds it has run."""

    label: str
    thread: str
    seconds: float


_TICK = 0.001
"""Seconds after which a thread that is up counts as being at something long."""
_SATURATED = 0.8
"""The part of a core above which more threads only get in each other's way."""
_MAX_WAITING = 1024
"""Threads of one pool that may be replaced while they wait; one cause of waiting gets half of them at most."""


class Bell:
    """Wakes one thread up, and lets go of the interpreter before it does.

    The release of a lock keeps the interpreter: where both share a core, the thread that is woken up runs at once,
    finds the interpreter taken, sleeps again and has to be woken up a second time. A system call lets go of it.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    @classmethod
    def make(cls) -> Bell | None:
        """Return a bell, None when there is no descriptor for it."""
        try:
            return cls(os.eventfd(0, os.EFD_CLOEXEC))
        except OSError:
            return None

    def ring(self) -> None:
        """Wake up the thread that waits, or the next that will."""
        os.eventfd_write(self._number, 1)

    def wait(self) -> None:
        """Wait until it rings."""
        os.eventfd_read(self._number)

    def __del__(self) -> None:
        """Free the descriptor, once no thread uses it."""
        os.close(self._number)


class _Job(msgspec.Struct, frozen=True):
    number: int
    label: str
    work: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]
    context: contextvars.Context


class Worker(threading.Thread):
    """A thread of a pool; `pool` says whose, for those who look at all threads (a dump, virtual time)."""

    def __init__(self, pool: WorkerPool, work: Callable[[Worker], None], name: str) -> None:
        super().__init__(target=self._begin, name=name, daemon=True)
        self.pool = pool
        self.stands_by = False
        self.surplus = False
        self.gate = threading.Lock()
        self.gate.acquire()
        self._work_of_pool = work

    def _begin(self) -> None:
        self._work_of_pool(self)


class WorkerPool:
    """A bounded pool of named daemon threads whose errors are never lost.

    The standard pool holds up the exit of the process until its threads return; these are daemon threads, so that a
    driver hung in a native call cannot. Work that raises anything, SystemExit included, harms only itself: the error
    goes to `done`, and to the log if `done` itself fails.

    Threads are started and woken as they are needed, and no more of them: only one can run Python at a time, so that
    eight that are woken for eight short jobs take several times as long as one that does all of them. While jobs wait,
    one thread stands by: each millisecond it looks, and lends a hand when those at work have got nowhere, or wait for
    something that is no Python. A job that comes while all have been at theirs for longer than that wakes another
    thread at once.

    Jobs of many clients are taken by turns; see `FairQueue`.

    A thread that waits for something that may never answer (`waiting_for`) is replaced: it does not count as one of
    `size` until it comes back. What comes back while there are enough others ends after its job.

    Args:
        name: Prefix of the threads' names: `name-1`, `name-2`.
        size: The most threads at work; those that are replaced while they wait are not counted.
        queue_limit: The most jobs that wait; one more is refused.
    """

    def __init__(self, name: str, size: int, queue_limit: int = 1000) -> None:
        self.name = name
        self.size = size
        self._queue: FairQueue[_Job] = FairQueue(queue_limit)
        self._lock = threading.Lock()
        self._threads: list[Worker] = []
        self._idle: list[Worker] = []
        self._stands_by: Worker | None = None
        self._bell: Bell | None = None
        self._at_bell: Worker | None = None
        self._rung = False
        self._ring = False
        self._running: dict[int, tuple[str, str, float]] = {}
        # Not part of `_threads` and `_running`: what decides about waking a thread up does not have to leave them out.
        self._waiting: dict[int, tuple[Worker, tuple[str, str, float]]] = {}
        self._shares = Shares(_MAX_WAITING)
        self._in_flight: set[int] = set()
        self._thread_numbers = itertools.count(1)
        self._job_numbers = itertools.count(1)
        self._stirred = 0.0
        self._finished = 0
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
        later: bool = False,
    ) -> None:
        """Queue `work`; `done(result, error)` runs on the worker's thread when it has ended. Any thread.

        The caller's context variables go along.

        Args:
            work: What is to be done.
            done: Told how it ended.
            label: What it is, for people.
            client: The account whose it is; None for the daemon's own.
            connection: The connection of that account from which it comes.
            later: Leave it to `wake` to wake a thread up; for several jobs in a row.

        Raises:
            Busy: The queue is full, or this client has its share of it waiting.
            Draining: The pool has been closed.
        """
        job = _Job(next(self._job_numbers), label, work, done, contextvars.copy_context())
        with self._lock:
            if self._closed:
                raise Draining(f"{self.name} takes no new work, it is being stopped", pool=self.name)
            if not self._queue.room(client, connection):
                raise self._full(client)
            self._queue.put(client, job, connection)
            self._in_flight.add(job.number)
            if later and self._threads:
                self._bell = self._bell or Bell.make()
                return
            if not self._see_to_it():
                self._in_flight.discard(self._queue.withdraw(client, connection).number)
                raise Busy(f"{self.name} cannot start a thread", hint="raise TasksMax or free memory", retry_after=5.0)
            ring = self._due_ring()
        if ring is not None:
            ring.ring()

    def wake(self) -> None:
        """Have what was submitted with `later` looked after. Any thread."""
        with self._lock:
            for _ in range(min(2, len(self._queue))):
                self._see_to_it()
            ring = self._due_ring()
        if ring is not None:
            ring.ring()  # without the lock: whoever is woken up needs it at once

    def _full(self, client: Hashable) -> Busy:
        waiting, limit = len(self._queue), self._queue.limit
        whose = f"{waiting} waiting" if waiting >= limit else f"{waiting} of {limit} waiting, this caller has its share"
        return Busy(
            f"the queue of {self.name} is full ({whose})",
            hint="try again in a second, or raise its `workers`",
            pool=self.name,
            retry_after=1.0,
        )

    async def run(self, work: Callable[[], T], *, label: str, client: Hashable = None) -> T:
        """Run `work` in the pool and wait for it on the loop. A cancelled wait does not stop the thread.

        Args:
            work: What is to be done.
            label: What it is, for people.
            client: The account whose it is; None for the daemon's own.

        Raises:
            Busy: The queue is full, or this client has its share of it waiting.
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

        self.submit(work, done, label=label, client=client)
        return await future

    def relabel(self, label: str) -> None:
        """Say what the job on this thread is at now, for a job that does several things. On the pool's threads."""
        with self._lock:
            _, thread, _ = self._running[threading.get_ident()]
            self._running[threading.get_ident()] = (label, thread, time.monotonic())

    def running(self, *, waiting: bool = True) -> list[Running]:
        """Return what the threads are doing now, longest first. Any thread.

        Args:
            waiting: Whether those that are replaced while they wait are included.
        """
        now = time.monotonic()
        with self._lock:
            found = [*self._running.values(), *(row for _, row in self._waiting.values() if waiting)]
        rows = [Running(label, thread, now - since) for label, thread, since in found]
        return sorted(rows, key=lambda row: -row.seconds)

    def is_full(self) -> bool:
        """Return whether a job that comes now has to wait for a thread. Any thread."""
        return len(self._running) + len(self._queue) >= self.size

    @property
    def queued(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._queue)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        with self._lock:
            every = [*self._threads, *(worker for worker, _ in self._waiting.values())]
        return sum(thread.is_alive() for thread in every)

    def in_flight(self) -> frozenset[int]:
        """Return the numbers of the jobs that wait, run, or whose end is being reported. Any thread."""
        with self._lock:
            return frozenset(self._in_flight)

    def close(self) -> list[str]:
        """Take no new work and let the threads end; return the labels of what waited, whose `done` gets `Draining`."""
        with self._lock:
            self._closed = True
            dropped = self._queue.clear()
            # Not the one that stands by: it looks by itself, and its gate may be open already.
            asleep, self._idle = self._idle, []
            self._ring = self._may_ring()
            self._rung = self._rung or self._ring
            ring, self._bell = self._due_ring(), None  # whoever waits at it has it
        for worker in asleep:
            worker.gate.release()
        if ring is not None:
            ring.ring()
        for job in dropped:
            self._finish(job, None, Draining(f"{self.name} was stopped before {job.label} had begun", pool=self.name))
        return [job.label for job in dropped]

    def join(self, timeout: float) -> list[Running]:
        """Wait up to `timeout` seconds for the threads to end after `close`; return what still runs."""
        until = time.monotonic() + timeout
        with self._lock:
            every = [*self._threads, *(worker for worker, _ in self._waiting.values())]
        for thread in every:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        return self.running()

    # ---------------------------------------------------------------- threads that wait

    def replace(self, worker: Worker, reason: Hashable) -> bool:
        """Have another thread work while this one waits; return False, and do nothing, when no more may be replaced.

        On the worker's thread, while it runs a job. See `waiting_for`.
        """
        me = threading.get_ident()
        with self._lock:
            if me in self._waiting or me not in self._running or not self._shares.room(reason):
                return False
            self._shares.take(reason)
            if not worker.surplus:
                self._threads.remove(worker)
            self._waiting[me] = worker, self._running.pop(me)
            if self._queue:
                self._rouse()
            ring = self._due_ring()
        if ring is not None:
            ring.ring()
        return True

    def restore(self, worker: Worker, reason: Hashable) -> None:
        """Have a thread work again that was replaced; when there are enough others, it ends after its job.

        On the worker's thread.
        """
        me = threading.get_ident()
        with self._lock:
            self._shares.give_back(reason)
            _, self._running[me] = self._waiting.pop(me)
            # One that ends looks as if it stood by: so the way of a job to its thread has no question more for it.
            worker.surplus = worker.stands_by = len(self._threads) >= self.size
            if not worker.surplus:
                self._threads.append(worker)

    # ---------------------------------------------------------------- who is to wake up; with the lock held

    def _see_to_it(self) -> bool:
        """Have a job that was just queued looked after; return False when there is no thread and can be none."""
        now = time.monotonic()
        up = len(self._threads) - len(self._idle) - (self._stands_by is not None) - self._may_ring()
        if not up or now - self._stirred > _TICK:
            self._stirred = now
            return self._rouse() or bool(self._threads)
        on_their_way = up - len(self._running)
        if self._stands_by is None and len(self._queue) > on_their_way:
            self._call_to_stand_by()
        return True

    def _may_ring(self) -> bool:
        return self._at_bell is not None and not self._rung

    def _due_ring(self) -> Bell | None:
        """Return the bell if it is to be rung, which is done without the lock."""
        ring, self._ring = self._ring, False
        return self._bell if ring else None

    def _rouse(self) -> bool:
        if self._may_ring():
            self._rung = self._ring = True
            return True
        if self._idle:
            # The one that went to sleep last: what it needs is still in the caches.
            self._idle.pop().gate.release()
            return True
        return self._start_thread()

    def _call_to_stand_by(self) -> None:
        if self._idle:
            worker = self._stands_by = self._idle.pop()
            worker.stands_by = True
            worker.gate.release()
        else:
            self._start_thread(stands_by=True)

    def _start_thread(self, *, stands_by: bool = False) -> bool:
        if len(self._threads) >= self.size:
            return False
        thread = Worker(self, self._work, f"{self.name}-{next(self._thread_numbers)}")
        thread.stands_by = stands_by
        self._threads.append(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached
            self._threads.remove(thread)
            if self._threads:
                _log.warning("%s cannot start another thread and goes on with %d", self.name, len(self._threads))
            return False
        if stands_by:
            self._stands_by = thread
        return True

    # ---------------------------------------------------------------- on the threads

    def _work(self, worker: Worker) -> None:
        me = threading.get_ident()
        while (job := self._next(worker, me)) is not None:
            result, error = None, None
            try:
                result = job.context.run(job.work)
            except BaseException as raised:  # noqa: BLE001 - SystemExit of a plugin must not end this thread
                error = raised
            if fork.in_child:
                fork.leave(error)
            with self._lock:
                del self._running[me]
            self._finish(job, result, error)
            # Keep nothing alive while waiting for the next job.
            del job, result, error

    def _next(self, worker: Worker, me: int) -> _Job | None:
        with self._lock:
            while worker.stands_by or not self._queue:
                if self._closed or worker.surplus:
                    return None
                if worker.stands_by:
                    worker.stands_by = self._stand_by(worker)
                    continue
                self._sleep(worker)
            # Taken and entered in one step: `running` and `in_flight` never miss a job between queue and thread.
            job = self._queue.pop()
            self._stirred = now = time.monotonic()
            self._running[me] = (job.label, worker.name, now)
            return job

    def _sleep(self, worker: Worker) -> None:
        """Wait at the bell, if nobody does, else at the thread's own gate; with the lock, which is let go meanwhile."""
        bell = self._bell if self._at_bell is None else None
        if bell is not None:
            self._at_bell = worker
        else:
            self._idle.append(worker)
        self._lock.release()
        try:
            if bell is not None:
                bell.wait()
            else:
                worker.gate.acquire()
        finally:
            self._lock.acquire()
            if bell is not None:
                self._at_bell, self._rung = None, False

    def _stand_by(self, worker: Worker) -> bool:
        """Wait for a moment beside those at work; return whether to go on waiting."""
        finished, used, since = self._finished, time.process_time(), time.monotonic()
        self._lock.release()
        try:
            worker.gate.acquire(timeout=_TICK)
        finally:
            self._lock.acquire()
        if self._closed:
            return False
        if self._queue:
            busy = time.process_time() - used >= _SATURATED * (time.monotonic() - since)
            if busy and self._finished != finished:
                return True
        self._stands_by = None
        if len(self._queue) > 1:
            self._call_to_stand_by()
        return False

    def _finish(self, job: _Job, result: Any, error: BaseException | None) -> None:
        try:
            job.done(result, error)
        except BaseException:  # noqa: BLE001 - reported, and the thread goes on
            _log.exception(
                "the end of %s in %s could not be reported (its error: %s)", job.label, self.name, text_of(error)
            )
        with self._lock:
            self._finished += 1
            self._in_flight.discard(job.number)


@contextmanager
def waiting_for(reason: Hashable) -> Iterator[bool]:
    """Let another thread of the pool work while this one waits inside the block for something that may never answer.

    So what waits for one thing cannot take all threads from what has nothing to do with it. For waits of more than some
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


def contained(error: BaseException) -> Exception:
    """Return the error as one that asyncio and the loop survive: SystemExit and its like become RuntimeError."""
    if is_a(error, Exception) and not is_a(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type_name_of(error)} was raised: {text_of(error)}")
    wrapped.__cause__ = error
    return wrapped
