"""The threads of one driver, and the time budgets of the calls in them."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Protocol

import msgspec

from ostler.aio import LoopQueue, WorkerPool, as_exception, waiting_for
from ostler.clock import Clock
from ostler.driver.call_progress import set_current_call
from ostler.driver.failure_streak import IGNORED_METHODS, CallTotals, FailureStreak
from ostler.errors import Busy, DriverError, DriverStuck, error_line
from ostler.log.defects import UnexpectedErrors
from ostler.messaging.wire.request_context import Context, current_account, current_context
from ostler.time_text import format_duration, format_moment, format_seconds

_QUICK_WAIT = 0.02
"""Real seconds after which a call is not quick any longer: from then on the loop watches its budget too."""
_RECHECK_INTERVAL = 0.25
"""Real seconds between two clock checks of a waiting caller, so that budgets hold even if the loop hangs."""
_PROGRESS_TIMEOUT = 10.0
"""A call with progress within so many seconds may finish although another call of its driver hangs."""
_START_GRACE = 1.0
"""Seconds after which a running call counts as blocked by one that hangs."""
_MAX_QUEUED = 100
"""The most calls that may wait for a thread of a driver in which no call ends."""
_STALL_TIMEOUT = 1.0
"""Seconds without the end of any call after which a driver with so many waiting calls refuses more."""

OnCallEnd = Callable[[Any, BaseException | None], None]

_log = logging.getLogger(__name__)


class TimeoutListener(Protocol):
    """Notified about calls that exceed their budget; called with the lane's lock held."""

    def on_timeout(self, call: DriverCall) -> None:
        """Called when a call has exceeded its budget."""
        ...

    def on_late_return(self, call: DriverCall, error: BaseException | None) -> None:
        """Called when a call that had exceeded its budget has ended, with an error or without."""
        ...

    def on_failure_count(self) -> None:
        """Called when one more call in a row has failed, or the first one after that has not."""
        ...

    def on_trial_end(self, outcome: bool | None) -> None:
        """Called when the call of `watch_trial` has ended: it worked, failed, or says nothing of the device (None)."""
        ...


class DriverLabel(msgspec.Struct, frozen=True):
    """The owner of a lane, for messages: the driver's name and the topic of its service."""

    driver: str
    topic: str

    def __str__(self) -> str:
        return f"driver {self.driver} of {self.topic}"


class DriverCall:
    """One call to a driver: waits for a thread, runs, is settled (the caller has its answer), has ended.

    Args:
        label: The method's name.
        budget: Seconds it may run, counted again from each progress report; `inf` for no limit.
        now: This moment of the monotonic clock.
        on_end: Called with result or error when the call has really ended, even if late; on that thread.
        is_long: Whether it leaves the last threads to others.

    `started_at` is a time of the monotonic clock; `started_wall` the same by the wall clock, once it has exceeded its
    budget.
    """

    __slots__ = (
        "budget",
        "context",
        "error",
        "future",
        "is_long",
        "is_overdue",
        "is_resolved",
        "label",
        "last_progress",
        "on_end",
        "queued_at",
        "resolved_event",
        "result",
        "started_at",
        "started_wall",
    )  # fmt: skip

    def __init__(
        self, label: str, budget: float, now: float, on_end: OnCallEnd | None = None, *, is_long: bool = False
    ) -> None:
        self.label = label
        self.is_long = is_long
        self.budget = budget
        self.queued_at = now
        self.started_at: float | None = None
        self.started_wall = 0.0
        self.is_overdue = False
        self.is_resolved = False
        self.resolved_event = threading.Event()
        self.future: asyncio.Future[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.on_end = on_end
        self.context: Context | None = current_context()
        self.last_progress = 0.0
        """When the driver reported progress through `Driver.progress`, with or without a request."""

    def is_progressing(self, now: float) -> bool:
        """Return whether it has just started, or has reported progress recently."""
        if self.started_at is None:
            return False
        moved = self._progressed_at()
        return now - self.started_at < _START_GRACE or (moved > self.started_at and now - moved < _PROGRESS_TIMEOUT)

    def remaining_time(self, now: float) -> float:
        """Return the seconds that are left of the budget."""
        start = self.queued_at if self.started_at is None else self.started_at
        return max(start, self._progressed_at()) + self.budget - now

    def _progressed_at(self) -> float:
        return self.last_progress if self.context is None else max(self.last_progress, self.context.last_progress)


class DriverExecutor:
    """Runs the calls of one driver in its own bounded, named daemon threads, each within a time budget.

    A running call cannot be interrupted. When its budget is used up its caller gets `DriverStuck` and the listener is
    notified, and again when the call returns late. All other callers of this driver get `DriverStuck` at the same time,
    except those whose work continues to report progress.

    Long calls leave some of the threads to short ones. A waiting caller is replaced in its own pool meanwhile.

    Args:
        label: The owner.
        workers: The most threads; of two or more, at least one is reserved for calls that are not long.
        loop: The loop on which budgets are watched.
        loop_queue: Passes work to that loop.
        clock: The source of time.
        lock: Guards the calls and the listener's own state, so that both change in one step.
        listener: Notified about calls that exceed their budget.
    """

    def __init__(
        self,
        label: DriverLabel,
        workers: int,
        loop: asyncio.AbstractEventLoop,
        loop_queue: LoopQueue,
        clock: Clock,
        lock: threading.Condition,
        listener: TimeoutListener,
        totals: CallTotals,
    ) -> None:
        self.failure_streak = FailureStreak(clock, totals)
        """What is known of failed calls."""
        abandon = f"`ostler driver abandon {label.topic}/{label.driver}`"
        self.stuck_hint = f"calls are refused until it returns; if it never does, {abandon}"
        """What to do when the driver is stuck."""
        self._defects = UnexpectedErrors(_log, topic=label.topic, driver=label.driver)
        self._label = label
        self._loop = loop
        self._loop_queue = loop_queue
        self._clock = clock
        self._lock = lock
        self._listener = listener
        kept = reserved_threads(workers)
        self._pool = WorkerPool(f"{label.topic}.{label.driver}", workers - kept)
        self._short_pool = WorkerPool(f"{label.topic}.{label.driver}-short", kept) if kept else self._pool
        self._max_calls = workers + _MAX_QUEUED
        self._active_calls: set[DriverCall] = set()
        self._call_counts = [0, 0]
        self._totals = totals
        self._trial: DriverCall | None = None
        self._raising_methods: set[str] = set()
        self._overdue_count = 0
        self._last_end_at = 0.0
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._sweep_timer: asyncio.TimerHandle | None = None

    def submit(
        self,
        label: str,
        work: Callable[[], Any],
        budget: float,
        on_end: OnCallEnd | None = None,
        *,
        is_long: bool = False,
    ) -> DriverCall:
        """Queue a call for the threads. Any thread.

        Args:
            label: The method's name.
            work: What is run.
            budget: Seconds it may run.
            on_end: See `Call`.
            is_long: Whether it leaves the last threads to others.

        Raises:
            Busy: The queue is full, or no thread can be started.
        """
        call = DriverCall(label, budget, self._clock.monotonic(), on_end, is_long=is_long)
        with self._lock:
            # Counted separately: however many copies wait, a volume can be detached.
            if self._call_counts[is_long] >= self._max_calls and call.queued_at - self._last_end_at > _STALL_TIMEOUT:
                raise self._queue_full_error(call)
            self._active_calls.add(call)
            self._call_counts[is_long] += 1
        pool = self._short_pool if not is_long and self._pool.is_full() else self._pool
        try:
            pool.submit(
                lambda: self._run(call, work),
                lambda r, e: self._on_call_end(call, r, e),
                label=label,
                client=current_account(),
            )
        except BaseException:
            with self._lock:
                self._active_calls.discard(call)
                self._call_counts[is_long] -= 1
            raise
        return call

    def watch_trial(self, call: DriverCall) -> None:
        """Tell the listener how this call ends, before its caller knows. With the lock held since `submit`."""
        self._trial = call

    @property
    def has_trial(self) -> bool:
        """Whether a call of `watch_trial` has not ended. With the lock held."""
        return self._trial is not None

    def wait(self, call: DriverCall) -> Any:
        """Wait for a call on a thread that is not the loop's, and return its result or raise its error."""
        if not call.resolved_event.wait(_QUICK_WAIT):
            self._loop_queue.post(lambda: self.watch(call))
            with waiting_for(self._label):
                while not call.resolved_event.wait(_RECHECK_INTERVAL):
                    self._check_budget(call)
        return _result_or_raise(call)

    async def wait_async(self, call: DriverCall) -> Any:
        """Wait for a call on the loop. A cancelled wait leaves the call in its thread, still watched."""
        future = self._loop.create_future()
        with self._lock:
            if not call.is_resolved:
                call.future = future
        if call.future is not None:
            self.watch(call)
            await future
        return _result_or_raise(call)

    def watch(self, call: DriverCall) -> None:
        """Watch a call's budget on the loop, whether there is a waiter or not. On the loop."""
        if call.budget != math.inf and not call.is_resolved:
            self._arm_sweep(self._check_budget(call))

    def overdue_calls(self) -> list[DriverCall]:
        """Return the calls that have exceeded their budget, oldest first; with the lock held."""
        return sorted((call for call in self._active_calls if call.is_overdue), key=_start_time)

    def is_running(self, label: str) -> bool:
        """Return whether a call of that method is in progress. Any thread."""
        with self._lock:
            return any(call.label == label for call in self._active_calls)

    def is_idle(self) -> bool:
        """Return whether nothing is in progress. Any thread."""
        with self._lock:
            return not self._active_calls

    def active_lines(self) -> list[str]:
        """Return what is in progress as `method (for 12 s)`, longest first. Any thread."""
        now = self._clock.monotonic()
        with self._lock:
            calls = sorted(self._active_calls, key=_start_time)
        return [f"{call.label} (for {format_duration(now - _start_time(call))})" for call in calls]

    def longest_runtime(self) -> float:
        """Return for how many seconds the longest call has been in progress, 0 when none is. Any thread."""
        now = self._clock.monotonic()
        with self._lock:
            return max((now - _start_time(call) for call in self._active_calls), default=0.0)

    async def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for every call to end; return whether they have. On the loop."""
        with self._lock:
            if not self._active_calls:
                return True
            future: asyncio.Future[None] = self._loop.create_future()
            self._idle_waiters.append(future)
        done, _ = await asyncio.wait([future], timeout=max(0.0, timeout))
        if not done:
            with self._lock:
                self._idle_waiters = [each for each in self._idle_waiters if each is not future]
        return bool(done)

    async def wait_current_calls(self) -> None:
        """Wait until all calls that are in progress now have ended, regardless of later ones. On the loop."""
        with self._lock:
            calls = set(self._active_calls)
        while calls:
            await asyncio.sleep(_RECHECK_INTERVAL)
            with self._lock:
                calls &= self._active_calls

    async def wait_idle_or_overdue(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for every call except those that have exceeded their budget."""
        until = self._loop.time() + timeout
        while (left := until - self._loop.time()) > 0 and self._has_calls_in_time():
            await self.wait_idle(min(left, _RECHECK_INTERVAL))

    def _has_calls_in_time(self) -> bool:
        with self._lock:
            return any(not call.is_overdue for call in self._active_calls)

    def cancel_contexts(self) -> None:
        """Cancel the contexts of all calls in progress. Any thread."""
        with self._lock:
            contexts = [call.context for call in self._active_calls if call.context is not None]
        for context in contexts:
            context.cancel()

    def fail_remaining(self) -> None:
        """Answer the callers of everything that is still in progress with `DriverStuck`. On the loop, in a stop."""
        with self._lock:
            for call in [call for call in self._active_calls if not call.is_resolved]:
                self._resolve(call, None, self._stuck_error(call, self._clock.monotonic()))

    def close(self) -> None:
        """Refuse further calls and let the idle threads end. On the loop."""
        self._cancel_sweep()
        self._pool.close()
        self._short_pool.close()

    def _run(self, call: DriverCall, work: Callable[[], Any]) -> Any:
        with self._lock:
            if call.is_resolved:  # its caller gave up while it waited for a thread
                raise self._no_thread_error(call)
            call.started_at = self._clock.monotonic()
        set_current_call(lambda: self._note_progress(call))
        result = work()
        if isinstance(result, CoroutineType | GeneratorType | AsyncGeneratorType):
            raise self._invalid_result_error(call, result)
        return result

    def _note_progress(self, call: DriverCall) -> None:
        call.last_progress = self._clock.monotonic()

    def _on_call_end(self, call: DriverCall, result: Any, error: BaseException | None) -> None:
        # By the type: `isinstance` asks `__class__`, which of a plugin's error may raise.
        if error is not None and not issubclass(type(error), Exception):
            error = self._wrap_base_exception(call, error)
        else:
            self._log_defect(call, error)
        with self._lock:
            self._active_calls.discard(call)
            self._call_counts[call.is_long] -= 1
            self._overdue_count -= call.is_overdue
            self._last_end_at = self._clock.monotonic()
            if call.started_at is not None:
                self._totals.seconds += self._last_end_at - call.started_at
            self._count_outcome(call, error)
            self._resolve(call, result, error)
            if call.is_overdue:
                self._listener.on_late_return(call, error)
            quiet = [] if self._active_calls else self._idle_waiters
            if quiet:
                self._idle_waiters = []
        for future in quiet:
            self._loop_queue.post(partial(resolve_future, future))
        if call.on_end is not None:
            call.on_end(result, error)

    def _log_defect(self, call: DriverCall, error: BaseException | None) -> None:
        """Log the traceback of an unexpected error at once, whatever the manager makes of it."""
        if error is None:
            if call.label in self._raising_methods:
                self._raising_methods.discard(call.label)
                self._defects.clear(f"{call.label} of {self._label}")
        elif call.label not in IGNORED_METHODS:  # those are logged by who calls them
            self._raising_methods.add(call.label)
            self._defects.log_error(f"{call.label} of {self._label}", error)

    def _count_outcome(self, call: DriverCall, error: BaseException | None) -> None:
        """Count a call as a success, a failure, or neither, with the lock held."""
        works: bool | None = None
        if error is not None:
            if self.failure_streak.failed(call.label, error):
                works = False
                self._listener.on_failure_count()
        elif call.label not in IGNORED_METHODS:
            works = True
            self.failure_streak.last_success = self._last_end_at
            if self.failure_streak.count and self.failure_streak.worked():
                self._listener.on_failure_count()
        if call is self._trial:
            self._trial = None
            self._listener.on_trial_end(works)

    def _resolve(self, call: DriverCall, result: Any, error: BaseException | None) -> None:
        if call.is_resolved:
            return
        call.is_resolved, call.result, call.error = True, result, error
        call.resolved_event.set()
        if (future := call.future) is not None:
            self._loop_queue.post(partial(resolve_future, future))

    def _arm_sweep(self, seconds: float) -> None:
        # One timer for all calls, at the first time at which a budget can expire.
        when = self._loop.time() + max(seconds, 0.0)
        if self._sweep_timer is None or self._sweep_timer.when() > when:
            self._cancel_sweep()
            self._sweep_timer = self._loop.call_at(when, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep_timer = None
        with self._lock:
            # A call whose caller was answered because another one hangs may hang as well.
            calls = [call for call in self._active_calls if not call.is_overdue and call.budget != math.inf]
            calls = [call for call in calls if not call.is_resolved or call.started_at is not None]
        left = [remaining for call in calls if (remaining := self._check_budget(call)) > 0]
        if left:
            self._arm_sweep(min(*left, _START_GRACE) if self._overdue_count else min(left))

    def _cancel_sweep(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    def _check_budget(self, call: DriverCall) -> float:
        """Return what is left of a call's budget; with nothing left, answer its caller. Any thread."""
        with self._lock:
            now = self._clock.monotonic()
            remaining = call.remaining_time(now)
            if remaining > 0 and self._overdue_count and not call.is_resolved and not call.is_progressing(now):
                self._resolve(call, None, self._stuck_error(call, now))
            if remaining > 0 or call.is_overdue or (call.is_resolved and call.started_at is None):
                return min(remaining, _START_GRACE) if self._overdue_count and not call.is_resolved else remaining
            if call.started_at is None:
                self._resolve(
                    call, None, self._stuck_error(call, now) if self._overdue_count else self._no_thread_error(call)
                )
                return remaining
            call.is_overdue = True
            call.started_wall = self._clock.wall() - (now - call.started_at)
            self._overdue_count += 1
            self._listener.on_timeout(call)
            self._loop_queue.post(partial(self._arm_sweep, _START_GRACE))  # check the remaining calls again
            for each in [call, *self._active_calls]:
                if not each.is_resolved and (each is call or not each.is_progressing(now)):
                    self._resolve(each, None, self._stuck_error(each, now))
            return remaining

    def _stuck_error(self, call: DriverCall, now: float) -> DriverStuck:
        oldest = min([*self.overdue_calls(), call], key=_start_time)
        seconds = now - _start_time(oldest)
        since = self._clock.wall() - seconds
        return DriverStuck(
            f"{self._label} is stuck: {oldest.label} has not returned for {format_duration(seconds)}, "
            f"since {format_moment(since)}",
            hint=self.stuck_hint,
            driver=self._label.driver,
            topic=self._label.topic,
            method=oldest.label,
            since=since,
        )

    def _invalid_result_error(self, call: DriverCall, result: Any) -> DriverError:
        if not isinstance(result, AsyncGeneratorType):
            result.close()
        return DriverError(
            f"{call.label} of {self._label} returned a {type(result).__name__} instead of a result",
            hint="methods of a driver must be `def` and return when their work is done",
            driver=self._label.driver,
            method=call.label,
        )

    def _wrap_base_exception(self, call: DriverCall, error: BaseException) -> DriverError:
        tamed = DriverError(
            f"{call.label} of {self._label} raised {error_line(error)}",
            hint="a driver must not end the process; this is a bug in the driver",
            driver=self._label.driver,
            method=call.label,
        )
        tamed.__cause__ = error
        # The driver error that callers get is expected and has no traceback: that of its cause is logged here.
        self._defects.log_error(f"{call.label} of {self._label}", error)
        return tamed

    def _running_labels(self) -> list[str]:
        return [each.label for each in self._active_calls if each.started_at is not None]

    def _no_thread_error(self, call: DriverCall) -> Busy:
        return Busy(
            f"{call.label} of {self._label} got no free thread within {format_seconds(call.budget)}",
            hint=f"running: {', '.join(sorted(self._running_labels()))}; "
            f"raise `workers` in [services.{self._label.topic}.drivers.{self._label.driver}]",
            driver=self._label.driver,
            method=call.label,
            retry_after=1.0,
        )

    def _queue_full_error(self, call: DriverCall) -> Busy:
        return Busy(
            f"{call.label} of {self._label} was refused: {self._call_counts[call.is_long]} calls wait and "
            "none finishes",
            hint="`ostler dump` shows what they do; retry later",
            driver=self._label.driver,
            method=call.label,
            retry_after=5.0,
        )


def reserved_threads(workers: int) -> int:
    """Return how many of a driver's threads are reserved for short calls; none of a single one."""
    return 0 if workers == 1 else max(1, workers // 8)


def resolve_future(future: asyncio.Future[None]) -> None:
    """End a wait for this future, if it is still waited for. On the loop."""
    if not future.done():
        future.set_result(None)


def _start_time(call: DriverCall) -> float:
    return call.queued_at if call.started_at is None else call.started_at


def _result_or_raise(call: DriverCall) -> Any:
    error, result = call.error, call.result
    call.error = call.result = None  # the timer may keep the call for a while; its result must not live as long
    if error is None:
        return result
    try:
        raise as_exception(error)
    finally:
        del error  # no cycle of frame and traceback
