"""The state machine of one driver."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler.aio import LoopQueue, WorkerPool, waiting_for
from ostler.bounds import escape_surrogates
from ostler.clock import Clock
from ostler.driver.abandoned_instances import AbandonedInstances
from ostler.driver.circuit_breaker import CircuitBreaker, refusal_error, refusal_text
from ostler.driver.driver import (
    FEATURE_ATTRIBUTE,
    Driver,
    DriverOptions,
    DriverSpec,
    with_options,
)
from ostler.driver.driver_calls import StuckCall, build_driver, method_budget, not_ready_error, run_cleanup
from ostler.driver.driver_executor import DriverCall, DriverExecutor, DriverLabel, resolve_future
from ostler.driver.failure_streak import IGNORED_METHODS, CallTotals
from ostler.errors import (
    DriverCrashed,
    DriverNotReady,
    FeatureNotSupported,
    PluginError,
    error_line,
    is_a,
)
from ostler.log import message_id
from ostler.log.defects import UnexpectedErrors
from ostler.redaction import redact
from ostler.time_text import format_duration, format_moment, format_seconds
from ostler.types import BreakerState, DriverState, DriverStatus

if TYPE_CHECKING:
    from ostler.driver.process.driver_process import DriverProcess

_log = logging.getLogger(__name__)
_INITIALISE_METHOD = "initialise"
_HELD_POLL_INTERVAL = 0.25
_RETRY_JITTER = 0.25
_ISOLATED_STUCK_HINT = "calls are refused until its process has been killed and started again"
_EXIT_TIMEOUT = 2.0
"""Seconds in which the process of a driver ends when it is asked to, before it is killed."""
RENEWAL_TIMEOUT = 10.0
"""Seconds that new options wait in the foreground for calls in progress; then they are applied in the background."""
_HOLD_TIMES = (1.0, 5.0, 30.0)
"""Seconds for which new calls are held at the first, second and each further attempt to find the driver idle."""


class DriverRunner:
    """Runs one driver: initialises it until that succeeds, accepts calls while it is ready, cleans it up.

        initialising ──► ready ◄──► stuck     a call outlived its budget; it came back
          ▲  │  ▲                     ▲
          │  │  └─────────────────────┘       `initialise` outlived `init_timeout`; it came back
          │  ▼
        failed                                tried again at `retry_at`; any state ──► stopped

    States change on any thread, under one lock shared with the lane. Changes are told on the loop, in their order.

    Args:
        spec: The specification of the driver.
        loop: The loop for timers.
        loop_queue: Passes work to that loop.
        clock: The source of time.
        rng: For the jitter of the waits between attempts.
        on_change: Called with every new status, on the loop.
        on_ready: Called each time the driver has become ready, on the loop.
    """

    def __init__(
        self,
        spec: DriverSpec,
        loop: asyncio.AbstractEventLoop,
        loop_queue: LoopQueue,
        clock: Clock,
        rng: random.Random,
        on_change: Callable[[DriverStatus], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.label = DriverLabel(spec.name, spec.environment.topic)
        self._defects = UnexpectedErrors(_log, topic=self.label.topic, driver=self.label.driver)
        self.driver: Any = None
        self._process: DriverProcess | None = None
        self._crash_count = 0
        self._ready_at = 0.0
        self._loop = loop
        self._loop_queue = loop_queue
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._on_ready = on_ready
        self._lock = threading.Condition()
        self._totals = CallTotals()
        self._executor = self._make_executor()
        self._abandoned = AbandonedInstances(self.label)
        self._state, self._why, self._since = DriverState.INITIALISING, "not started yet", clock.wall()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._tries = self._attempt_number = self._call_count = 0
        self._stuck_call = "", clock.wall()
        self._was_failing = False
        self._breaker = CircuitBreaker(clock, rng, self._schedule_trial, self._on_breaker_change)
        self._is_held = False
        self._pending_spec: DriverSpec | None = None
        self._renewal_task: asyncio.Task[None] | None = None
        self._claimed = asyncio.Event()
        self._is_stopping = False
        self._cleanup_pool: WorkerPool | None = None
        self._release_waiters: list[asyncio.Future[None]] = []

    def _make_executor(self) -> DriverExecutor:
        workers, loop = self.spec.options.workers, self._loop
        return DriverExecutor(self.label, workers, loop, self._loop_queue, self._clock, self._lock, self, self._totals)

    @property
    def state(self) -> DriverState:
        """The state now. Any thread."""
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether it accepts calls: it is ready, and is not being stopped. Any thread."""
        return self._state is DriverState.READY and not self._is_stopping

    def status(self) -> DriverStatus:
        """Return the driver as an operator sees it; `calls` counts those started since the start. Any thread."""
        with self._lock:
            kind = self._driver_class()
            streak = self._executor.failure_streak
            return DriverStatus(
                name=self.spec.name,
                driver=self.spec.options.driver or (kind.__qualname__ if kind else ""),
                state=self._state,
                why=self._why,
                since=self._since,
                retry_at=self._retry_at,
                tries=self._tries,
                calls=self._call_count,
                seconds=self._totals.seconds,
                pending=self._pending_text(),
                failures=streak.count,
                errors=self._totals.errors,
                last_error=streak.shown_error(),
                last_error_at=streak.last_error_at,
                last_success_at=self._last_success_at(),
                breaker=self._breaker.state,
                breaker_since=self._breaker.since,
                breaker_trial_at=self._breaker.trial_at,
                abandoned=self._abandoned.count(),
            )

    def _last_success_at(self) -> float:
        succeeded = self._executor.failure_streak.last_success
        return 0.0 if succeeded is None else self._clock.wall() - (self._clock.monotonic() - succeeded)

    def _pending_text(self) -> str:
        """Return what new options wait for, empty when there are none; with the lock held."""
        if self._pending_spec is None or self._is_stopping or self._state is DriverState.INITIALISING:
            return ""
        return (
            "applies new options as soon as no call is in progress: "
            f"{', '.join(self._executor.active_lines()) or 'now'}"
        )

    def problem(self) -> str:
        """Return a line when all calls of the ready driver fail, empty when they do not. Any thread.

        The text does not change with each further call.
        """
        streak, limit = self._executor.failure_streak, self.spec.options.failure_limit
        if self._state is not DriverState.READY:
            return ""
        if refusing := self._refusal():
            return refusing
        if not streak.is_failing(limit):
            return ""
        calls = f"{limit} calls in a row or more" if limit > 1 else "calls"
        error = streak.shown_error()
        return f"{self.label}: {calls} have failed, since {format_moment(streak.since)}; the last error: {error}"

    def subject(self) -> Any:
        """Return what has the driver's methods: the instance, else its class; None if neither is known yet."""
        return self._driver_class() if self.driver is None or self._process is not None else self.driver

    def remote_attributes(self) -> Mapping[str, Any]:
        """Return the plain attributes that an instance in a process of its own had when it became ready."""
        return self.driver.__dict__["_attributes"] if self.driver is not None and self._process is not None else {}

    def _driver_class(self) -> type[Driver] | None:
        if self.driver is None or self._process is not None:
            return self.spec.cls or (self.spec.contract if self.spec.is_isolated else None)
        return type(self.driver)

    def calls_in_progress(self) -> list[str]:
        """Return the calls that have not returned, a line each. Any thread."""
        rows = self._cleanup_pool.running_jobs() if self._cleanup_pool is not None else []
        cleaning = [f"cleanup (for {format_duration(row.seconds)})" for row in rows]
        return [f"{line} of {self.label}" for line in [*self._executor.active_lines(), *cleaning]]

    def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method and wait for it on this thread, which is not the loop's; see `Drivers`."""
        while (call := self._submit_unless_held(method, arguments, named)) is None:
            with waiting_for(self.label), self._lock:
                while self._is_held:
                    self._lock.wait(_HELD_POLL_INTERVAL)
        return self._executor.wait(call)

    async def call_async(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method and wait for it on the loop; see `Drivers.call`."""
        while (call := self._submit_unless_held(method, arguments, named)) is None:
            await self._release_future()
        return await self._executor.wait_async(call)

    def start(self) -> None:
        """Initialise, retrying with growing waits until it succeeds. On the loop."""
        self._retry_timer = None
        if self._is_stopping:
            return
        with self._lock:
            self._tries += 1
            self._attempt_number += 1
            self._retry_at = 0.0
            self._set_state(
                DriverState.INITIALISING, f"attempt {self._tries}, after: {self._why}" if self._tries > 1 else ""
            )
        attempt = self._attempt_number
        try:
            if self.spec.is_isolated and self.driver is None:
                self._executor.stuck_hint = _ISOLATED_STUCK_HINT
                self._start_process()
            call = self._executor.submit(
                _INITIALISE_METHOD,
                self._run_initialise,
                self.spec.options.init_timeout,
                lambda _, error: self._loop_queue.post(lambda: self._on_initialise_end(attempt, error)),
            )
        except Exception as error:  # noqa: BLE001 - no thread for it is a failed try like any other
            self._on_initialise_end(attempt, error)
        else:
            self._executor.watch(call)

    async def reinitialise(self, spec: DriverSpec, timeout: float) -> DriverStatus:
        """Clean up and create again by a specification; see `Drivers.reinitialise`."""
        with self._lock:
            if self._is_stopping:
                what = f"{self.label} cannot apply new options, it is {self._state}"
                raise DriverNotReady(what, driver=self.spec.name)
            self._pending_spec = spec
        if self._renewal_task is None or self._renewal_task.done():
            self._claimed.clear()
            self._renewal_task = self._loop.create_task(self._rebuild_when_idle(), name=f"new options of {self.label}")
        renewal = self._renewal_task
        claimed = self._loop.create_task(self._claimed.wait(), name=f"wait for {self.label}")
        await asyncio.wait([renewal, claimed], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if claimed.done():
            await asyncio.wait([renewal])
        claimed.cancel()
        if renewal.done():
            renewal.result()
        return self.status()

    def discard_pending_options(self) -> None:
        """Drop pending options: the current ones are wanted again."""
        with self._lock:
            self._pending_spec = None

    def apply_options(self, options: DriverOptions) -> None:
        """Apply other options; a driver that is being created right now may still get the previous ones."""
        with self._lock:
            self.spec = with_options(self.spec, options)
            if self.driver is not None:
                self.driver.options = options

    def hangs_in_initialise(self) -> bool:
        """Return whether it is stuck because `initialise` does not return. Any thread."""
        return self._state is DriverState.STUCK and self._executor.is_running(_INITIALISE_METHOD)

    async def abandon(self, spec: DriverSpec | None = None) -> DriverStatus:
        """Give up a stuck instance with its threads, and create another one; see `Drivers.abandon`. On the loop."""
        with self._lock:
            self._abandoned.check(self._state, self._is_stopping)
            given_up = self._executor
            self._abandoned.add(given_up)
            # No `cleanup`: the instance is in use by the thread that hangs in it.
            self.driver = None
            process, self._process = self._process, None
            self.spec, self._pending_spec = spec or self._pending_spec or self.spec, None
            self._executor = self._make_executor()
            self._attempt_number += 1
            self._tries = 0
            self._set_state(DriverState.INITIALISING, f"abandoned while stuck: {self._why}")
        if self._renewal_task is not None:
            self._renewal_task.cancel()
        self._cancel_retry()
        if process is not None:
            process.kill("its driver was abandoned")
        given_up.fail_remaining()
        given_up.close()
        _log.warning("%s: its stuck instance was abandoned, another one is created", self.label)
        first = self._release_future()
        self.start()
        await first
        return self.status()

    async def stop(self, deadline: float) -> bool:
        """Stop before `deadline` of the loop's time; return whether something hangs. On the loop."""
        with self._lock:
            self._is_stopping = True
            self._release_held_calls()
        self._cancel_retry()
        if self._renewal_task is not None and not self._claimed.is_set():
            self._renewal_task.cancel()
        # Half of the time for calls in progress, none for stuck ones. `cleanup` runs despite a hanging call, because
        # releasing is better than not; but not despite a hanging `initialise`, which may still be acquiring.
        await self._executor.wait_idle_or_overdue((deadline - self._loop.time()) / 2)
        if self._executor.is_running(_INITIALISE_METHOD):
            await self._executor.wait_idle_or_overdue(deadline - self._loop.time())
        cleaned, why = True, ""
        self._end_hanging_initialise()
        if not self._executor.is_running(_INITIALISE_METHOD):
            cleaned, why = await self._take_down(max(0.05, deadline - self._loop.time()))
        hung = self._executor.active_lines() + ([] if cleaned else ["cleanup"])
        self._executor.fail_remaining()
        self._executor.close()
        with self._lock:
            self._set_state(
                DriverState.STUCK if hung else DriverState.STOPPED, ", ".join(hung) + " hung" if hung else why
            )
        return bool(hung)

    def cancel_calls(self) -> None:
        """Cancel the contexts of the calls in progress. Any thread."""
        self._executor.cancel_contexts()

    def on_timeout(self, call: DriverCall) -> None:
        """See `TimeoutListener`; the lock is held."""
        if self._state is DriverState.STUCK:
            return
        self._stuck_call = call.label, call.started_wall
        why = f"{call.label} did not return within its {format_seconds(call.budget)}"
        _log.error("%s is stuck: %s", self.label, why)
        if self._process is not None:
            self._end_overdue_call(call, self._process, why)
        self._set_state(DriverState.STUCK, why)
        self._release_held_calls()

    def on_late_return(self, call: DriverCall, error: BaseException | None) -> None:
        """See `TimeoutListener`; the lock is held."""
        outcome = f", with {error_line(error)}" if error is not None else ""
        _log.warning("%s: %s returned late%s", self.label, call.label, outcome)
        over = self._executor.overdue_calls()
        # The end of an `initialise` is handled by `_on_initialise_end`.
        is_over = call.label == _INITIALISE_METHOD or self._is_stopping or is_a(error, DriverCrashed)
        if self._state is DriverState.STUCK and not over and not is_over:
            self._set_state(DriverState.READY, "")

    def on_failure_count(self) -> None:
        """See `TimeoutListener`; the lock is held."""
        count, options = self._executor.failure_streak.count, self.spec.options
        if count:
            self._breaker.on_failure(count, options.breaker_limit, options.retry_interval, options.max_retry_interval)
        else:
            self._breaker.close()
        is_failing = bool(self.problem())
        if is_failing is not self._was_failing:
            self._was_failing = is_failing
            self._notify_change()

    def on_trial_end(self, outcome: bool | None) -> None:
        """See `TimeoutListener`; the lock is held."""
        if outcome is False:
            self._breaker.on_trial_failure(self.spec.options.retry_interval, self.spec.options.max_retry_interval)
        elif outcome:
            self._breaker.close()

    def reset_breaker(self) -> bool:
        """Forget failures in a row, and let all calls through; return whether some were refused. Any thread."""
        with self._lock:
            self._executor.failure_streak.worked()
            was_open = self._breaker.close()
            self.on_failure_count()
            return was_open

    def _notify_change(self) -> None:
        status = self.status()
        self._loop_queue.post(lambda: self._on_change(status))

    def _on_breaker_change(self) -> None:
        if self._breaker.state is BreakerState.OPEN:
            _log.warning("%s", self._refusal(), extra=message_id("breaker-open"))
        else:
            _log.info("%s", self._refusal() or f"{self.label} accepts calls again: its circuit breaker is closed")
        self._notify_change()

    def _schedule_trial(self, seconds: float, number: int) -> None:
        def begin_trial() -> None:
            with self._lock:
                self._breaker.end_wait(number)

        def start_timer() -> None:
            self._loop.call_later(seconds, begin_trial)

        self._loop_queue.post(start_timer)

    def _refusal(self) -> str:
        """Return why the circuit breaker refuses calls, empty when it does not. Any thread."""
        return refusal_text(self.label, self._breaker, self._executor.failure_streak)

    def _raise_if_refusing(self, method: str) -> None:
        """Refuse a call while the circuit breaker is open, or half open with a trial in progress."""
        state = self._breaker.state
        if state is BreakerState.CLOSED or method in IGNORED_METHODS:
            return
        if state is BreakerState.OPEN or self._executor.has_trial:
            raise refusal_error(self.label, method, self._breaker, self._executor.failure_streak, self._clock.wall())

    def _submit_unless_held(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> DriverCall | None:
        with self._lock:
            return None if self._is_held else self._submit(method, arguments, named)

    def _submit(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> DriverCall:
        # The lock is held from the check of the state to the entry in the lane: the lane is never seen idle in between.
        self._raise_unless_ready(method)
        self._raise_if_refusing(method)
        function = getattr(self.driver, method)
        if feature := getattr(function, FEATURE_ATTRIBUTE, ""):  # the contract's: not overridden
            raise FeatureNotSupported(
                f"{self.label} does not support {feature}",
                hint="its `features` list what it supports; use another driver",
                driver=self.spec.name, feature=feature, method=method,
            )  # fmt: skip
        budget, is_long = method_budget(self._driver_class() or Driver, self.spec.options, method)
        call = self._executor.submit(method, lambda: function(*arguments, **named), budget, is_long=is_long)
        self._call_count += 1
        if self._breaker.state is BreakerState.HALF_OPEN and method not in IGNORED_METHODS:
            self._executor.watch_trial(call)
        return call

    def _raise_unless_ready(self, method: str) -> None:
        if self._state is DriverState.READY and not self._is_stopping:
            return
        stuck = StuckCall(*self._stuck_call, self._executor.stuck_hint)
        wait = max(0.0, self._retry_at - self._clock.wall()) if self._retry_at else None
        state = DriverState.STOPPED if self._is_stopping else self._state
        raise not_ready_error(self.label, method, state, self._why, stuck=stuck, retry_in=wait)

    def _run_initialise(self) -> None:
        if self._is_stopping:  # it waited for a thread, and is not needed any longer
            return
        if self.driver is None:
            self.driver = build_driver(self.spec, str(self.label))
        self.driver.initialise()

    def _on_initialise_end(self, attempt: int, error: BaseException | None) -> None:
        """Handle the end of an attempt. On the loop."""
        with self._lock:
            if attempt != self._attempt_number or self._is_stopping:
                return
            error = self._discard_lost_process(error)
            if error is None:
                self._tries = 0
                self._ready_at = self._clock.monotonic()
                self._executor.failure_streak.worked()  # it has begun anew; what it does then counts
                self._was_failing = False
                self._breaker.close()
                self._defects.clear(f"initialise of {self.label}")
                _log.info("%s is ready", self.label)
                self._set_state(DriverState.READY, "")
            elif is_a(error, PluginError):  # the class itself is wrong: a retry cannot help
                _log.error("%s cannot be used: %s", self.label, error_line(error))
                self._set_state(DriverState.FAILED, error_line(error))
            else:
                self._defects.log_error(f"initialise of {self.label}", error)
                self._schedule_retry(error_line(error))
            self._release_held_calls()

    def _schedule_retry(self, why: str, what: str = "could not be initialised, next attempt in") -> None:
        options = self.spec.options
        wait = min(options.max_retry_interval, options.retry_interval * 2.0 ** min(self._tries - 1, 60))
        wait *= 1.0 - _RETRY_JITTER * self._rng.random()
        self._retry_at = self._clock.wall() + wait
        self._set_state(DriverState.FAILED, why)
        _log.warning("%s %s %s: %s", self.label, what, format_seconds(wait, 2), why)
        self._retry_timer = self._loop.call_later(wait, self.start)

    def _cancel_retry(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    # ---------------------------------------------------------------- a driver in a process of its own

    def _start_process(self) -> None:
        """Start the process of a driver that has none. On the loop, with whose thread it dies."""
        # 3 MB that a daemon without such drivers does not need.
        from ostler.driver.process.driver_process import DriverProcess
        from ostler.driver.process.remote_driver import make_remote

        if not self.spec.import_path:
            raise PluginError(
                f"{self.label} cannot run in a process of its own: nothing can be imported by a name there",
                hint="name a class or a function at the top level of a module, or set `isolation` to `thread`",
                driver=self.spec.name,
            )
        # In a context of its own: what it prints, and its end, belong to no request, such as the reload that starts it.
        arguments = self.spec, str(self.label), self._loop, self._loop_queue, self._on_crash
        process = contextvars.Context().run(DriverProcess, *arguments)
        self._process = process
        self.driver = make_remote(self.spec, process)

    def _on_crash(self, process: DriverProcess, error: DriverCrashed) -> None:
        """Start a driver again whose process has ended. On the loop."""
        with self._lock:
            if self._is_stopping or process is not self._process:
                return
            _log.error("%s", error.message)
            # The end of an attempt to initialise it is handled with that.
            if self._state is DriverState.INITIALISING or self._executor.is_running(_INITIALISE_METHOD):
                return
            self._attempt_number += 1
            self.driver = self._process = None
            if self._clock.monotonic() - self._ready_at > self.spec.options.max_retry_interval:
                self._crash_count = 0
            self._crash_count += 1
            self._tries = self._crash_count
            self._schedule_retry(f"its process {error.reason}", "is started again in")

    def _discard_lost_process(self, error: BaseException | None) -> BaseException | None:
        """Drop a process that has ended while its driver was initialised; return the error of that attempt."""
        if self._process is None or not (self._process.is_lost or is_a(error, DriverCrashed)):
            return error
        if error is None:
            error = self._process.crash_error(_INITIALISE_METHOD)
        self.driver = self._process = None
        return error

    def _end_overdue_call(self, call: DriverCall, process: DriverProcess, late: str) -> None:
        """Cancel a call in its process, and kill that if the call does not return."""
        process.cancel(call.label, call.context)
        grace = self.spec.options.kill_timeout
        why = f"{late}, nor within {format_seconds(grace)} of being cancelled"

        def kill_if_overdue() -> None:
            with self._lock:
                overdue = self._executor.overdue_calls()
            if process is self._process and overdue:
                process.kill(why)

        def wait_for_grace() -> None:
            self._loop.call_later(grace, kill_if_overdue)

        self._loop_queue.post(wait_for_grace)

    def _end_hanging_initialise(self) -> None:
        """Kill a process in which `initialise` still hangs; a thread can only be left alone. On the loop, in a stop."""
        if self._process is not None and self._executor.is_running(_INITIALISE_METHOD):
            self._process.kill("initialise did not return before the driver was stopped")

    # ---------------------------------------------------------------- other options

    async def _rebuild_when_idle(self) -> None:
        """Wait until nothing is in progress, and create the driver again, until it runs with the wanted options.

        New calls are held only briefly, and not again before the calls found in progress have ended: a copy of hours
        must not delay other calls, and calls that always overlap must not postpone the options indefinitely.
        """
        try:
            tries = 0
            while self._pending_spec is not None and not self._is_stopping:
                if await self._claim_within(_HOLD_TIMES[min(tries, len(_HOLD_TIMES) - 1)]):
                    await self._rebuild(self.spec.options.init_timeout)
                    self._claimed.clear()
                    tries = 0
                else:
                    tries += 1
                    await self._executor.wait_current_calls()
        finally:
            with self._lock:
                self._release_held_calls()

    async def _claim_within(self, seconds: float) -> bool:
        """Take the driver out of service when nothing is in progress within `seconds`.

        New calls are held for that time, unless a call has been running for longer already and may continue for hours.
        """
        with self._lock:
            self._is_held = self._state is DriverState.READY and self._executor.longest_runtime() < seconds
        until = self._loop.time() + seconds
        while not self._try_claim():
            unwanted = self._is_stopping or self._pending_spec is None
            if unwanted or not await self._executor.wait_idle(until - self._loop.time()):
                with self._lock:
                    self._release_held_calls()
                return False
        return True

    def _try_claim(self) -> bool:
        """Take an idle driver out of service; return False if something is in progress."""
        with self._lock:
            if not self._executor.is_idle() or self._is_stopping or self._pending_spec is None:
                return False
            self._attempt_number += 1  # ignore the end of an attempt that is still being posted here
            # Hold calls again: a stuck call that returned meanwhile has released the others.
            self._is_held = True
            self._set_state(DriverState.INITIALISING, "applying new options")
        self._claimed.set()
        self._cancel_retry()
        return True

    async def _rebuild(self, timeout: float) -> None:
        cleaned, why = await self._take_down(timeout)
        with self._lock:
            wanted, self._pending_spec = self._pending_spec, None
            if not cleaned:
                self._stuck_call = "cleanup", self._clock.wall() - timeout
                self._set_state(DriverState.STUCK, f"cleanup did not return within its {format_seconds(timeout)}")
                return
        if why:
            _log.warning("%s applies its new options although its %s", self.label, why)
        if wanted is not None:
            self._adopt(wanted)
        self._tries = 0
        first = self._release_future()
        self.start()
        if not self._is_stopping:
            await first

    def _adopt(self, spec: DriverSpec) -> None:
        """Run by another specification from now on; nothing is in progress."""
        with self._lock:
            before = self.spec
            needs_threads = spec.options.workers != before.options.workers or spec.is_isolated is not before.is_isolated
            self.spec = spec
            if needs_threads:
                self._executor.close()
                self._executor = self._make_executor()

    async def _take_down(self, timeout: float) -> tuple[bool, str]:
        """Run `cleanup` in its own thread, as the lane's may all hang; return whether it has ended, and its error."""
        driver, self.driver = self.driver, None
        process, self._process = self._process, None
        if driver is None:
            return True, ""
        cleaned, why = await self._clean_up(driver, timeout)
        if process is None:
            return cleaned, why
        if not cleaned:
            why = f"cleanup did not return within its {format_seconds(timeout)}; its process was killed"
            process.kill(why)
        await process.end(_EXIT_TIMEOUT)
        await self._executor.wait_idle(_EXIT_TIMEOUT)  # what hung in the process has its error now
        return True, why

    async def _clean_up(self, driver: Driver, timeout: float) -> tuple[bool, str]:
        pool = self._cleanup_pool = WorkerPool(f"{self.label.topic}.{self.label.driver}-cleanup", 1)
        has_ended, error = await run_cleanup(driver, pool, timeout)
        if error is None:
            return has_ended, ""
        self._defects.log_error(f"cleanup of {self.label}", error)
        _log.warning("cleanup of %s failed: %s", self.label, error_line(error))
        return True, f"cleanup failed: {error_line(error)}"

    def _set_state(self, state: DriverState, why: str) -> None:
        """Change the state, with the lock held, and notify on the loop."""
        if state is not self._state:
            self._since = self._clock.wall()
        if state is not DriverState.FAILED:
            self._retry_at = 0.0
        self._state, self._why = state, escape_surrogates(redact(why))
        status = self.status()
        self._loop_queue.post(lambda: self._on_change(status))
        if state is DriverState.READY:
            self._loop_queue.post(self._on_ready)

    def _release_future(self) -> asyncio.Future[None]:
        """Return a future that is resolved when held callers continue. On the loop."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._release_waiters.append(future)
        return future

    def _release_held_calls(self) -> None:
        """Let held callers continue, with the lock held."""
        self._is_held = False
        self._lock.notify_all()
        waiters, self._release_waiters = self._release_waiters, []
        for future in waiters:
            self._loop_queue.post(partial(resolve_future, future))
