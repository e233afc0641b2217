"""The threads of one driver, and the time budgets of the calls in them."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Protocol

import msgspec

from ostler.aio import Inbox, WorkerPool, contained, waiting_for
from ostler.clock import Clock
from ostler.driver.failing import Failing
from ostler.errors import Busy, DriverError, DriverStuck, describe
from ostler.log.defects import Defects
from ostler.messaging.context import Context, current_account, current_context

_QUICK = 0.02
"""Real seconds after which a call is no longer quick: from then on the loop watches its budget as well."""
_RECHECK = 0.25
"""Real seconds between two looks of a waiting caller at the clock; a loop that hangs must not hold up a time budget."""
_MOVES_WITHIN = 10.0
"""Seconds within which a call has reported progress that is left to end although another one of its driver hangs."""
_JUST_BEGUN = 1.0
"""Seconds for which a call may run before it counts as held up by one that hangs."""
_MAX_QUEUED = 100
"""Calls that may wait for a thread of a driver in which nothing ends."""
_STANDSTILL = 1.0
"""Seconds without an end of any call after which a driver with so many calls takes no more of them."""

Outcome = Callable[[Any, BaseException | None], None]

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told about calls that outlive their budget; called with the lane's lock held."""

    def went_over(self, call: Call) -> None:
        """A call has outlived its budget."""
        ...

    def came_back(self, call: Call, error: BaseException | None) -> None:
        """A call that had outlived its budget has ended after all, with an error or without."""
        ...


class LaneNames(msgspec.Struct, frozen=True):
    """Whose lane it is, for messages: the driver's name and the topic of its service."""

    driver: str
    topic: str

    def __str__(self) -> str:
        return f"driver {self.driver} of {self.topic}"


class Call:
    """One call into a driver: waits for a thread, runs, is settled (the caller has its answer), has ended.

    Args:
        label: The method's name.
        budget: Seconds it may run, counted anew from each progress report; `inf` for no limit.
        now: This moment of the monotonic clock.
        on_end: Told result or error when the thread has really ended, also when that is late; on that thread.
        is_long: Whether it leaves the last threads to others.

    `begun` is a moment of the monotonic clock; `begun_at` the same of the wall clock, once it has outlived its budget.
    """

    __slots__ = (
        "begun", "begun_at", "budget", "context", "error", "future", "is_long", "label", "on_end", "overdue", "queued",
        "result", "settled", "settled_event",
    )  # fmt: skip

    def __init__(
        self, label: str, budget: float, now: float, on_end: Outcome | None = None, *, is_long: bool = False
    ) -> None:
        self.label = label
        self.is_long = is_long
        self.budget = budget
        self.queued = now
        self.begun: float | None = None
        self.begun_at = 0.0
        self.overdue = False
        self.settled = False
        self.settled_event = threading.Event()
        self.future: asyncio.Future[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.on_end = on_end
        self.context: Context | None = current_context()

    def is_moving(self, now: float) -> bool:
        """Return whether its work has just begun, or has reported progress a short time ago."""
        if self.begun is None:
            return False
        moved = self.context.last_progress if self.context is not None else 0.0
        return now - self.begun < _JUST_BEGUN or (moved > self.begun and now - moved < _MOVES_WITHIN)

    def remaining(self, now: float) -> float:
        """Return the seconds that are left of the budget."""
        start = self.queued if self.begun is None else self.begun
        if self.context is not None:
            start = max(start, self.context.last_progress)
        return start + self.budget - now


class Lane:
    """Runs the calls of one driver in its own bounded, named daemon threads, each within a time budget.

    A call cannot be taken out of its thread. When its budget is used up its caller gets `DriverStuck`, the listener is
    told, and told again when the call comes back after all. All others that wait for this driver get `DriverStuck` at
    the same moment, but for those whose work goes on to report progress.

    Long calls leave some of the threads to short ones. Whoever waits here holds no thread of its own pool meanwhile.

    Args:
        names: Whose lane it is.
        workers: The most threads; of two or more, at least one is kept for calls that are not long.
        loop: The loop on which budgets are watched.
        inbox: The way to that loop.
        clock: The source of time.
        lock: Guards the calls and the listener's own state, so that both change in one step.
        listener: Who is told.
    """

    def __init__(
        self,
        names: LaneNames,
        workers: int,
        loop: asyncio.AbstractEventLoop,
        inbox: Inbox,
        clock: Clock,
        lock: threading.Condition,
        listener: Listener,
    ) -> None:
        self.failing = Failing(clock)
        """How many calls have failed one after another."""
        self._defects = Defects(_log, topic=names.topic, driver=names.driver)
        self._names = names
        self._loop = loop
        self._inbox = inbox
        self._clock = clock
        self._lock = lock
        self._listener = listener
        kept = kept_for_short(workers)
        self._pool = WorkerPool(f"{names.topic}.{names.driver}", workers - kept)
        self._short = WorkerPool(f"{names.topic}.{names.driver}-short", kept) if kept else self._pool
        self._most = workers + _MAX_QUEUED
        self._active: set[Call] = set()
        self._counts = [0, 0]
        self._hung = 0
        self._ended_at = 0.0
        self._quiet: list[asyncio.Future[None]] = []
        self._sweep: asyncio.TimerHandle | None = None

    def begin(
        self,
        label: str,
        work: Callable[[], Any],
        budget: float,
        on_end: Outcome | None = None,
        *,
        is_long: bool = False,
    ) -> Call:
        """Hand a call to the threads. Any thread.

        Args:
            label: The method's name.
            work: What is run.
            budget: Seconds it may run.
            on_end: See `Call`.
            is_long: Whether it is to leave the last threads to others.

        Raises:
            Busy: There is no room or no thread for it.
        """
        call = Call(label, budget, self._clock.monotonic(), on_end, is_long=is_long)
        with self._lock:
            # Counted apart: however many copies wait, a volume can be detached.
            if self._counts[is_long] >= self._most and call.queued - self._ended_at > _STANDSTILL:
                raise self._overrun(call)
            self._active.add(call)
            self._counts[is_long] += 1
        pool = self._short if not is_long and self._pool.is_full() else self._pool
        try:
            pool.submit(
                lambda: self._run(call, work),
                lambda r, e: self._end(call, r, e),
                label=label,
                client=current_account(),
            )
        except BaseException:
            with self._lock:
                self._active.discard(call)
                self._counts[is_long] -= 1
            raise
        return call

    def wait(self, call: Call) -> Any:
        """Wait for a call on a thread that is not the loop's, and return its result or raise its error."""
        if not call.settled_event.wait(_QUICK):
            self._inbox.post(lambda: self.watch(call))
            with waiting_for(self._names):
                while not call.settled_event.wait(_RECHECK):
                    self._check(call)
        return _answer(call)

    async def wait_async(self, call: Call) -> Any:
        """Wait for a call on the loop. A cancelled wait leaves the call in its thread, still watched."""
        future = self._loop.create_future()
        with self._lock:
            if not call.settled:
                call.future = future
        if call.future is not None:
            self.watch(call)
            await future
        return _answer(call)

    def watch(self, call: Call) -> None:
        """Have the loop watch a call's budget, whether somebody waits for it or not. On the loop."""
        if call.budget != math.inf and not call.settled:
            self._arm(self._check(call))

    def overdue(self) -> list[Call]:
        """Return the calls that have outlived their budget, oldest first; with the lock held."""
        return sorted((call for call in self._active if call.overdue), key=_started)

    def busy_with(self, label: str) -> bool:
        """Return whether a call of that method is under way. Any thread."""
        with self._lock:
            return any(call.label == label for call in self._active)

    def is_quiet(self) -> bool:
        """Return whether nothing is under way. Any thread."""
        with self._lock:
            return not self._active

    def active(self) -> list[str]:
        """Return what is under way as `method (for 12 s)`, longest first. Any thread."""
        now = self._clock.monotonic()
        with self._lock:
            calls = sorted(self._active, key=_started)
        return [f"{call.label} (for {now - _started(call):.0f} s)" for call in calls]

    def longest(self) -> float:
        """Return for how many seconds the longest call has been under way, 0 when none is. Any thread."""
        now = self._clock.monotonic()
        with self._lock:
            return max((now - _started(call) for call in self._active), default=0.0)

    async def quiet(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for every call to end; return whether they have. On the loop."""
        with self._lock:
            if not self._active:
                return True
            future: asyncio.Future[None] = self._loop.create_future()
            self._quiet.append(future)
        done, _ = await asyncio.wait([future], timeout=max(0.0, timeout))
        if not done:
            with self._lock:
                self._quiet = [each for each in self._quiet if each is not future]
        return bool(done)

    async def all_ended(self) -> None:
        """Wait until all calls that are under way now have ended, whatever has begun meanwhile. On the loop."""
        with self._lock:
            calls = set(self._active)
        while calls:
            await asyncio.sleep(_RECHECK)
            with self._lock:
                calls &= self._active

    async def quiet_but_stuck(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for every call that may still end: not for those that outlived their budget."""
        until = self._loop.time() + timeout
        while (left := until - self._loop.time()) > 0 and self._hopeful():
            await self.quiet(min(left, _RECHECK))

    def _hopeful(self) -> bool:
        with self._lock:
            return any(not call.overdue for call in self._active)

    def cancel_contexts(self) -> None:
        """Tell the work of all calls under way that it is not wanted any more. Any thread."""
        with self._lock:
            contexts = [call.context for call in self._active if call.context is not None]
        for context in contexts:
            context.cancel()

    def give_up(self) -> None:
        """Answer the callers of everything that is still under way with `DriverStuck`. On the loop, in a stop."""
        with self._lock:
            for call in [call for call in self._active if not call.settled]:
                self._settle(call, None, self._stuck(call, self._clock.monotonic()))

    def close(self) -> None:
        """Take no more calls and let the idle threads end. On the loop."""
        self._cancel_sweep()
        self._pool.close()
        self._short.close()

    def _run(self, call: Call, work: Callable[[], Any]) -> Any:
        with self._lock:
            if call.settled:  # its caller has given up while it waited for a thread
                raise self._crowded(call)
            call.begun = self._clock.monotonic()
        result = work()
        if isinstance(result, CoroutineType | GeneratorType | AsyncGeneratorType):
            raise self._unfinished(call, result)
        return result

    def _end(self, call: Call, result: Any, error: BaseException | None) -> None:
        # By the type: `isinstance` asks `__class__`, which of a plugin's error may raise.
        if error is not None and not issubclass(type(error), Exception):
            error = self._tamed(call, error)
        with self._lock:
            self._active.discard(call)
            self._counts[call.is_long] -= 1
            self._hung -= call.overdue
            self._ended_at = self._clock.monotonic()
            if error is not None:
                self.failing.failed(call.label, error)
            elif self.failing.times:
                self.failing.worked(call.label)
            self._settle(call, result, error)
            if call.overdue:
                self._listener.came_back(call, error)
            quiet = [] if self._active else self._quiet
            if quiet:
                self._quiet = []
        for future in quiet:
            self._inbox.post(partial(wake, future))
        if call.on_end is not None:
            call.on_end(result, error)

    def _settle(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.settled:
            return
        call.settled, call.result, call.error = True, result, error
        call.settled_event.set()
        if (future := call.future) is not None:
            self._inbox.post(partial(wake, future))

    def _arm(self, seconds: float) -> None:
        # One timer for all calls, at the first moment at which a budget can run out.
        when = self._loop.time() + max(seconds, 0.0)
        if self._sweep is None or self._sweep.when() > when:
            self._cancel_sweep()
            self._sweep = self._loop.call_at(when, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        with self._lock:
            # One whose caller has been answered because another hangs may hang as well.
            calls = [call for call in self._active if not call.overdue and call.budget != math.inf]
            calls = [call for call in calls if not call.settled or call.begun is not None]
        left = [remaining for call in calls if (remaining := self._check(call)) > 0]
        if left:
            self._arm(min(*left, _JUST_BEGUN) if self._hung else min(left))

    def _cancel_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _check(self, call: Call) -> float:
        """Return what is left of a call's budget; with nothing left, answer its caller. Any thread."""
        with self._lock:
            now = self._clock.monotonic()
            remaining = call.remaining(now)
            if remaining > 0 and self._hung and not call.settled and not call.is_moving(now):
                self._settle(call, None, self._stuck(call, now))
            if remaining > 0 or call.overdue or (call.settled and call.begun is None):
                return min(remaining, _JUST_BEGUN) if self._hung and not call.settled else remaining
            if call.begun is None:
                self._settle(call, None, self._stuck(call, now) if self._hung else self._crowded(call))
                return remaining
            call.overdue = True
            call.begun_at = self._clock.wall() - (now - call.begun)
            self._hung += 1
            self._listener.went_over(call)
            self._inbox.post(partial(self._arm, _JUST_BEGUN))  # those that are left to end are looked at again
            for each in [call, *self._active]:
                if not each.settled and (each is call or not each.is_moving(now)):
                    self._settle(each, None, self._stuck(each, now))
            return remaining

    def _stuck(self, call: Call, now: float) -> DriverStuck:
        oldest = min([*self.overdue(), call], key=_started)
        seconds = now - _started(oldest)
        since = self._clock.wall() - seconds
        return DriverStuck(
            f"{self._names} is stuck: {oldest.label} has not come back for {seconds:.0f} s, since {at_time(since)}",
            hint="further calls are refused until it comes back; if it never does, restart the daemon",
            driver=self._names.driver,
            topic=self._names.topic,
            method=oldest.label,
            since=since,
        )

    def _unfinished(self, call: Call, result: Any) -> DriverError:
        if not isinstance(result, AsyncGeneratorType):
            result.close()
        return DriverError(
            f"{call.label} of {self._names} returned a {type(result).__name__} instead of a result",
            hint="methods of a driver are `def` and return when their work is done",
            driver=self._names.driver,
            method=call.label,
        )

    def _tamed(self, call: Call, error: BaseException) -> DriverError:
        tamed = DriverError(
            f"{call.label} of {self._names} raised {describe(error)}",
            hint="a driver must not end the process; this is an error in the driver",
            driver=self._names.driver,
            method=call.label,
        )
        tamed.__cause__ = error
        # The driver error that callers get is expected and has no traceback: that of its cause is logged here.
        self._defects.tell(f"{call.label} of {self._names}", error)
        return tamed

    def _crowded(self, call: Call) -> Busy:
        return Busy(
            f"{call.label} of {self._names} found no free thread in {call.budget:g} s",
            hint=f"at work are {', '.join(sorted(each.label for each in self._active if each.begun is not None))}; "
            f"raise `workers` in [services.{self._names.topic}.drivers.{self._names.driver}]",
            driver=self._names.driver,
            method=call.label,
            retry_after=1.0,
        )

    def _overrun(self, call: Call) -> Busy:
        return Busy(
            f"{call.label} of {self._names} was not begun: {self._counts[call.is_long]} calls wait, and none ends",
            hint="see `ostler dump` for what they do; try again later",
            driver=self._names.driver,
            method=call.label,
            retry_after=5.0,
        )


def kept_for_short(workers: int) -> int:
    """Return how many of a driver's threads long calls leave to others; none of a single one."""
    return 0 if workers == 1 else max(1, workers // 8)


def at_time(wall: float) -> str:
    """Return a moment as it stands in messages."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def wake(future: asyncio.Future[None]) -> None:
    """End a wait for this future, if it is still waited for. On the loop."""
    if not future.done():
        future.set_result(None)


def _started(call: Call) -> float:
    return call.queued if call.begun is None else call.begun


def _answer(call: Call) -> Any:
    error, result = call.error, call.result
    call.error = call.result = None  # the timer may keep the call a while; its result need not live as long
    if error is None:
        return result
    try:
        raise contained(error)
    finally:
        del error  # no cycle of frame and traceback
