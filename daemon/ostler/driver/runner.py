"""The state machine of one driver."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from ostler.aio import Inbox, WorkerPool, waiting_for
from ostler.bounds import sendable
from ostler.clock import Clock
from ostler.driver.base import BUDGET_MARK, FEATURE_MARK, Driver, DriverOptions, DriverSpec
from ostler.driver.contract import require_contract
from ostler.driver.lane import Call, Lane, LaneNames, at_time, wake
from ostler.errors import (
    DriverNotReady,
    DriverStuck,
    FeatureNotSupported,
    PluginError,
    describe,
    is_a,
)
from ostler.log.defects import Defects
from ostler.redaction import redact
from ostler.types import DriverState, DriverStatus

_log = logging.getLogger(__name__)
_INITIALISE = "initialise"
_HELD_RECHECK = 0.25
_JITTER = 0.25
RENEWAL_PATIENCE = 10.0
"""Seconds for which whoever brings new options waits for the calls under way; after that they come by themselves."""
_HOLDS = (1.0, 5.0, 30.0)
"""Seconds for which new calls are held at the first, second and each further try to find the driver without any."""


class DriverRunner:
    """Runs one driver: initialises it until that succeeds, admits calls while it is ready, tears it down.

        initialising ──► ready ◄──► stuck     a call outlived its budget; it came back
          ▲  │  ▲                     ▲
          │  │  └─────────────────────┘       `initialise` outlived `init_timeout`; it came back
          │  ▼
        failed                                tried again at `retry_at`; any state ──► stopped

    States change on any thread, under one lock shared with the lane. Changes are told on the loop, in their order.

    Args:
        spec: What is run.
        loop: The loop for timers.
        inbox: The way to that loop.
        clock: The source of time.
        chance: For the jitter of the waits between tries.
        changed: Told every new status, on the loop.
        became_ready: Told each time the driver has become ready, on the loop.
    """

    def __init__(
        self,
        spec: DriverSpec,
        loop: asyncio.AbstractEventLoop,
        inbox: Inbox,
        clock: Clock,
        chance: random.Random,
        changed: Callable[[DriverStatus], None],
        became_ready: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.names = LaneNames(spec.name, spec.environment.topic)
        self._defects = Defects(_log, topic=self.names.topic, driver=self.names.driver)
        self.driver: Driver | None = None
        self._loop = loop
        self._inbox = inbox
        self._clock = clock
        self._chance = chance
        self._changed = changed
        self._became_ready = became_ready
        self._lock = threading.Condition()
        self._lane = Lane(self.names, spec.options.workers, loop, inbox, clock, self._lock, self)
        self._state, self._why, self._since = DriverState.INITIALISING, "not started yet", clock.wall()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._tries = 0
        self._attempt = 0
        self._calls = 0
        self._hung = "", clock.wall()
        self._held = False
        self._wanted: DriverOptions | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._claimed = asyncio.Event()
        self._stopping = False
        self._cleaning: WorkerPool | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def state(self) -> DriverState:
        """The state now. Any thread."""
        return self._state

    def status(self) -> DriverStatus:
        """Return the driver as an operator sees it; `calls` counts those begun since the start. Any thread."""
        with self._lock:
            kind = type(self.driver) if self.driver is not None else self.spec.cls
            return DriverStatus(
                name=self.spec.name,
                driver=self.spec.options.driver or (kind.__qualname__ if kind else ""),
                state=self._state,
                why=self._why,
                since=self._since,
                retry_at=self._retry_at,
                tries=self._tries,
                calls=self._calls,
                pending=self._pending(),
            )

    def _pending(self) -> str:
        """Return what new options wait for, empty when there are none; with the lock held."""
        if self._wanted is None or self._stopping or self._state is DriverState.INITIALISING:
            return ""
        return f"takes over new options as soon as nothing is under way: {', '.join(self._lane.active()) or 'now'}"

    def trouble(self) -> str:
        """Return a line when all calls of the ready driver fail, empty when they do not. Any thread."""
        return self._lane.failing.trouble(self.names) if self._state is DriverState.READY else ""

    def under_way(self) -> list[str]:
        """Return the calls that have not come back, a line each. Any thread."""
        rows = self._cleaning.running() if self._cleaning is not None else []
        cleaning = [f"cleanup (for {row.seconds:.0f} s)" for row in rows]
        return [f"{line} of {self.names}" for line in [*self._lane.active(), *cleaning]]

    def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method and wait for it on this thread, which is not the loop's; see `Drivers`."""
        while (call := self._begin_unless_held(method, arguments, named)) is None:
            with waiting_for(self.names), self._lock:
                while self._held:
                    self._lock.wait(_HELD_RECHECK)
        return self._lane.wait(call)

    async def call_async(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method and wait for it on the loop; see `Drivers.call`."""
        while (call := self._begin_unless_held(method, arguments, named)) is None:
            await self._released()
        return await self._lane.wait_async(call)

    def start(self) -> None:
        """Try to initialise, and again with growing waits until it succeeds. On the loop."""
        self._retry = None
        if self._stopping:
            return
        with self._lock:
            self._tries += 1
            self._attempt += 1
            self._retry_at = 0.0
            self._set(DriverState.INITIALISING, f"try {self._tries}, after: {self._why}" if self._tries > 1 else "")
        attempt = self._attempt
        try:
            call = self._lane.begin(
                _INITIALISE,
                self._initialise,
                self.spec.options.init_timeout,
                lambda _, error: self._inbox.post(lambda: self._tried(attempt, error)),
            )
        except Exception as error:  # noqa: BLE001 - no thread for it is a failed try like any other
            self._tried(attempt, error)
        else:
            self._lane.watch(call)

    async def reinitialise(self, options: DriverOptions | None, patience: float) -> DriverStatus:
        """Take down and build anew; see `Drivers.reinitialise`."""
        with self._lock:
            if self._stopping:
                what = f"{self.names} cannot take new options, it is {self._state}"
                raise DriverNotReady(what, driver=self.spec.name)
            self._wanted = options or self.spec.options
        if self._renewal is None or self._renewal.done():
            self._claimed.clear()
            self._renewal = self._loop.create_task(self._renew_when_idle(), name=f"new options of {self.names}")
        renewal = self._renewal
        claimed = self._loop.create_task(self._claimed.wait(), name=f"wait for {self.names}")
        await asyncio.wait([renewal, claimed], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if claimed.done():
            await asyncio.wait([renewal])
        claimed.cancel()
        if renewal.done():
            renewal.result()
        return self.status()

    def withdraw_options(self) -> None:
        """Forget new options that wait for calls under way: those that the driver runs with are wanted again."""
        with self._lock:
            self._wanted = None

    def take_options(self, options: DriverOptions) -> None:
        """Put other options in force; a driver that is being built right now may still be given those before."""
        with self._lock:
            environment = replace(self.spec.environment, options=options)
            self.spec = replace(self.spec, options=options, environment=environment)
            if self.driver is not None:
                self.driver.options = options

    async def stop(self, until: float) -> bool:
        """Tear down before the moment `until` of the loop's time; return whether something hangs. On the loop."""
        with self._lock:
            self._stopping = True
            self._release()
        self._cancel_retry()
        if self._renewal is not None and not self._claimed.is_set():
            self._renewal.cancel()
        # Half of the time for what is under way, and none for what is stuck already. A call that hangs on is cleaned up
        # beside, for letting go is better than not; an `initialise` that hangs is not, for it may still be acquiring.
        await self._lane.quiet_but_stuck((until - self._loop.time()) / 2)
        if self._lane.busy_with(_INITIALISE):
            await self._lane.quiet_but_stuck(until - self._loop.time())
        cleaned, why = True, ""
        if not self._lane.busy_with(_INITIALISE):
            cleaned, why = await self._take_down(max(0.05, until - self._loop.time()))
        hung = self._lane.active() + ([] if cleaned else ["cleanup"])
        self._lane.give_up()
        self._lane.close()
        with self._lock:
            self._set(DriverState.STUCK if hung else DriverState.STOPPED, ", ".join(hung) + " hung" if hung else why)
        return bool(hung)

    def cancel_calls(self) -> None:
        """Tell the calls under way that they are not wanted any more. Any thread."""
        self._lane.cancel_contexts()

    def went_over(self, call: Call) -> None:
        """See `lane.Listener`; the lock is held."""
        if self._state is DriverState.STUCK:
            return
        self._hung = call.label, call.begun_at
        why = f"{call.label} has not come back within its {call.budget:g} s"
        _log.error("%s is stuck: %s", self.names, why)
        self._set(DriverState.STUCK, why)
        self._release()

    def came_back(self, call: Call, error: BaseException | None) -> None:
        """See `lane.Listener`; the lock is held."""
        outcome = f", with {describe(error)}" if error is not None else ""
        _log.warning("%s: %s came back after all%s", self.names, call.label, outcome)
        over = self._lane.overdue()
        # The end of an `initialise` is judged by `_tried`.
        if self._state is DriverState.STUCK and not over and call.label != _INITIALISE and not self._stopping:
            self._set(DriverState.READY, "")

    def _begin_unless_held(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Call | None:
        with self._lock:
            return None if self._held else self._begin(method, arguments, named)

    def _begin(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Call:
        # The lock is held from the look at the state to the entry in the lane: nobody finds the lane quiet in between.
        self._admit(method)
        function = getattr(self.driver, method)
        if feature := getattr(function, FEATURE_MARK, ""):  # that of the contract: who offers it has one of its own
            raise FeatureNotSupported(
                f"{self.names} does not offer {feature}",
                hint="its `features` say what it offers; use another driver",
                driver=self.spec.name, feature=feature, method=method,
            )  # fmt: skip
        budget, is_long = self._budget(method)
        call = self._lane.begin(method, lambda: function(*arguments, **named), budget, is_long=is_long)
        self._calls += 1
        return call

    def _admit(self, method: str) -> None:
        if self._state is DriverState.READY and not self._stopping:
            return
        facts = {"driver": self.spec.name, "topic": self.names.topic, "method": method, "state": str(self._state)}
        if self._state is DriverState.STUCK and not self._stopping:
            label, since = self._hung
            raise DriverStuck(
                f"{self.names} is stuck: {self._why}, since {at_time(since)}",
                hint="calls are refused until it comes back; if it never does, restart the daemon",
                **{**facts, "method": label or method, "since": since},
            )
        if self._stopping:
            raise DriverNotReady(f"{self.names} has been stopped", **facts)
        what = "is still initialising" if self._state is DriverState.INITIALISING else "is not ready"
        after = f", next try in {max(0.0, self._retry_at - self._clock.wall()):.0f} s" if self._retry_at else ""
        why = f": {self._why}" if self._why else ""
        raise DriverNotReady(f"{self.names} {what}{after}{why}", hint="see `ostler status`", **facts)

    def _budget(self, method: str) -> tuple[float, bool]:
        """Return the seconds that a method may take, and whether it usually takes long."""
        for kind in type(self.driver).__mro__:
            mark = getattr(vars(kind).get(method), BUDGET_MARK, None)
            if mark is not None:
                budget = getattr(self.spec.options, mark[0]) if isinstance(mark[0], str) else mark[0]
                return (math.inf if budget is None else float(budget)), mark[1]
        return float(self.spec.options.call_timeout), False

    def _initialise(self) -> None:
        if self._stopping:  # it waited for a thread, and nobody wants it any more
            return
        if self.driver is None:
            self.driver = self._built()
        self.driver.initialise()

    def _built(self) -> Driver:
        spec = self.spec
        if spec.build is None and spec.cls is None:
            raise PluginError(f"{self.names} has neither a class nor a factory", driver=spec.name)
        driver = (spec.build or spec.cls)(spec.environment)  # type: ignore[misc]  # one of them is there, see above
        if type(driver) is not spec.cls:  # a factory's product: its class is known only now
            require_contract(type(driver), spec.contract, what=str(self.names))
        return driver

    def _tried(self, attempt: int, error: BaseException | None) -> None:
        """Judge the end of a try. On the loop."""
        with self._lock:
            if attempt != self._attempt or self._stopping:
                return
            if error is None:
                self._tries = 0
                self._defects.worked(f"initialise of {self.names}")
                _log.info("%s is ready", self.names)
                self._set(DriverState.READY, "")
            elif is_a(error, PluginError):  # the class itself is wrong: another try cannot help
                _log.error("%s cannot be used: %s", self.names, describe(error))
                self._set(DriverState.FAILED, describe(error))
            else:
                self._defects.tell(f"initialise of {self.names}", error)
                self._try_later(describe(error))
            self._release()

    def _try_later(self, why: str) -> None:
        options = self.spec.options
        wait = min(options.retry_interval_max, options.retry_interval * 2.0 ** min(self._tries - 1, 60))
        wait *= 1.0 - _JITTER * self._chance.random()
        self._retry_at = self._clock.wall() + wait
        self._set(DriverState.FAILED, why)
        _log.warning("%s could not be initialised, next try in %.3g s: %s", self.names, wait, why)
        self._retry = self._loop.call_later(wait, self.start)

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _renew_when_idle(self) -> None:
        """Wait until nothing is under way, and build the driver anew, until it runs with the options that are wanted.

        New calls are held for a moment only, and not again before those have ended that were found under way: a copy
        of hours must not hold up everybody else, and calls that overlap all the time must not put the options off for
        ever.
        """
        try:
            tries = 0
            while self._wanted is not None and not self._stopping:
                if await self._claim_within(_HOLDS[min(tries, len(_HOLDS) - 1)]):
                    await self._renew(self.spec.options.init_timeout)
                    self._claimed.clear()
                    tries = 0
                else:
                    tries += 1
                    await self._lane.all_ended()
        finally:
            with self._lock:
                self._release()

    async def _claim_within(self, seconds: float) -> bool:
        """Take the driver out of service when nothing is under way within so many seconds.

        New calls are held for that time, unless something runs for longer than that already and may go on for hours.
        """
        with self._lock:
            self._held = self._state is DriverState.READY and self._lane.longest() < seconds
        until = self._loop.time() + seconds
        while not self._claim():
            unwanted = self._stopping or self._wanted is None
            if unwanted or not await self._lane.quiet(until - self._loop.time()):
                with self._lock:
                    self._release()
                return False
        return True

    def _claim(self) -> bool:
        """Take a quiet driver out of service; return False if something is under way."""
        with self._lock:
            if not self._lane.is_quiet() or self._stopping or self._wanted is None:
                return False
            self._attempt += 1  # the end of a try that is on its way here counts no more
            # Held once more: a call that was stuck and came back meanwhile has let the others go.
            self._held = True
            self._set(DriverState.INITIALISING, "takes over new options")
        self._claimed.set()
        self._cancel_retry()
        return True

    async def _renew(self, timeout: float) -> None:
        cleaned, why = await self._take_down(timeout)
        with self._lock:
            wanted, self._wanted = self._wanted, None
            if not cleaned:
                self._hung = "cleanup", self._clock.wall() - timeout
                self._set(DriverState.STUCK, f"cleanup has not come back within its {timeout:g} s")
                return
        if why:
            _log.warning("%s goes on to new options although its %s", self.names, why)
        if wanted is not None:
            self.take_options(wanted)
        self._tries = 0
        first = self._released()
        self.start()
        if not self._stopping:
            await first

    async def _take_down(self, timeout: float) -> tuple[bool, str]:
        """Run `cleanup` in a thread of its own, the lane's may all hang; return whether it came back, and its error."""
        driver, self.driver = self.driver, None
        if driver is None:
            return True, ""
        pool = self._cleaning = WorkerPool(f"{self.names.topic}.{self.names.driver}-cleanup", 1)
        try:
            work = asyncio.ensure_future(pool.run(driver.cleanup, label="cleanup"))
            done, _ = await asyncio.wait([work], timeout=timeout)
            if not done:
                work.cancel()
                return False, ""
            error = work.exception()
        finally:
            pool.close()
        if error is None:
            return True, ""
        self._defects.tell(f"cleanup of {self.names}", error)
        _log.warning("cleanup of %s failed: %s", self.names, describe(error))
        return True, f"cleanup failed: {describe(error)}"

    def _set(self, state: DriverState, why: str) -> None:
        """Change the state, with the lock held, and tell so on the loop."""
        if state is not self._state:
            self._since = self._clock.wall()
        if state is not DriverState.FAILED:
            self._retry_at = 0.0
        self._state, self._why = state, sendable(redact(why))
        status = self.status()
        self._inbox.post(lambda: self._changed(status))
        if state is DriverState.READY:
            self._inbox.post(self._became_ready)

    def _released(self) -> asyncio.Future[None]:
        """Return a future of the next moment at which held callers go on. On the loop."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._waiters.append(future)
        return future

    def _release(self) -> None:
        """Let held callers go on, with the lock held."""
        self._held = False
        self._lock.notify_all()
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            self._inbox.post(partial(wake, future))
