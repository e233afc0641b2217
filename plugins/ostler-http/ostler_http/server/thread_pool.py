"""A bounded pool of threads whose size can be changed, for code that blocks and may hang."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class PoolFull(Exception):
    """Raised when as many jobs wait as may."""


class ThreadPool:
    """Runs jobs on threads that are daemons: one that hangs holds up no end of the process. Any thread may call.

    Args:
        name: The beginning of the names of its threads.
        size: How many threads it may have; they are started when they are needed.
        queue_limit: How many jobs may wait.
    """

    def __init__(self, name: str, size: int, queue_limit: int) -> None:
        self._name = name
        self._condition = threading.Condition()
        self._queue: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._overdue: set[threading.Thread] = set()
        self._hung: set[threading.Thread] = set()
        self._idle = 0
        self._number = 0
        self._size = size
        self._queue_limit = queue_limit

    @property
    def size(self) -> int:
        """How many threads it may have."""
        return self._size

    def running(self) -> int:
        """Return how many threads there are, those that were given up not among them."""
        with self._condition:
            return len(self._threads - self._hung)

    def overdue(self) -> int:
        """Return how many of these do what nobody waits for any more: it hangs, as far as can be told."""
        with self._condition:
            return len(self._overdue - self._hung)

    def resize(self, size: int, queue_limit: int | None = None) -> None:
        """Set how many threads it may have, and give up those that are overdue: others take their places.

        Args:
            size: The number; 0 lets jobs in progress end and refuses others.
            queue_limit: How many jobs may wait; as before by default.
        """
        with self._condition:
            self._size = size
            self._hung |= self._overdue
            self._queue_limit = self._queue_limit if queue_limit is None else queue_limit
            for _ in range(min(len(self._queue), size - len(self._threads - self._hung))):
                self._start_thread()
            self._condition.notify_all()

    def submit(self, job: Job) -> None:
        """Run a job as soon as a thread is free.

        Raises:
            PoolFull: Too many wait already, or the pool has no threads.
        """
        with self._condition:
            live = len(self._threads - self._hung)
            free = self._idle - len(self._queue)
            is_full = free <= 0 and live >= self._size and len(self._queue) >= self._queue_limit
            if is_full or not self._size:
                raise PoolFull
            self._queue.append(job)
            if free <= 0 and live < self._size:
                self._start_thread()
            self._condition.notify()

    def mark_overdue(self, thread: threading.Thread) -> None:
        """Note that nobody waits for what a thread does any more. It still counts: threads that hang must not add up.

        It is free again when its job returns; `resize` gives it up.
        """
        with self._condition:
            if thread in self._threads:
                self._overdue.add(thread)

    def _start_thread(self) -> None:
        self._number += 1
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._number}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory, or the limit of tasks is reached: what waits goes on waiting
            self._threads.discard(thread)
            if not self._threads:
                self._queue.clear()
                raise PoolFull from None

    def _run(self) -> None:
        thread = threading.current_thread()
        while (job := self._next_job(thread)) is not None:
            job()

    def _next_job(self, thread: threading.Thread) -> Job | None:
        with self._condition:
            self._overdue.discard(thread)
            while True:
                if thread in self._hung or len(self._threads - self._hung) > self._size:
                    self._threads.discard(thread)
                    self._hung.discard(thread)
                    return None
                if self._queue:
                    return self._queue.popleft()
                self._idle += 1
                self._condition.wait()
                self._idle -= 1
