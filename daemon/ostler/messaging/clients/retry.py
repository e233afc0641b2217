"""When a request that failed is sent again, how long that waits, and the wait of a thread. No I/O."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from ostler.clock import Clock
from ostler.errors import Busy, ConnectionLost, DaemonNotRunning, Draining, InvalidInput, MethodNotFound, OstlerError
from ostler.messaging.wire.request_context import Context

T = TypeVar("T")


class Retry(NamedTuple):
    """A policy: how often a request is sent in all, how long to wait in between, and after which errors.

    All attempts have one request id, and together the time of one call. A server that has had the request already
    answers with what the first attempt came to, or is coming to, and does not run it again; that ends when it is
    restarted, or `dedup_ttl` is over.

    By default only errors are tried again after which the work was not begun for sure; among them is `Draining` of a
    service that is being restarted, which says when to try again. With `ConnectionLost` in `on` a
    request is tried again over a restart of the daemon too, which may run it twice: for methods that may.

    Args:
        attempts: How often it is sent at most, the first time included.
        backoff: Seconds before the second attempt; doubled each time, less up to a half at random.
        max_backoff: The longest such wait in seconds. A `retry_after` that the server names is waited for in any case.
        on: The classes of errors after which it is sent again. A `MethodNotFound` is final, whatever they are.
        after_loss: Further such classes, once an attempt has ended with `ConnectionLost`: a daemon that restarts may
            have accepted it, and says at first that it is not there.
    """

    attempts: int = 5
    backoff: float = 0.2
    max_backoff: float = 10.0
    on: tuple[type[OstlerError], ...] = (Busy, DaemonNotRunning)
    after_loss: tuple[type[OstlerError], ...] = ()

    def check(self) -> None:
        """Refuse a policy that makes no sense.

        Raises:
            InvalidInput: Says what is wrong with it.
        """
        if self.attempts < 1 or self.backoff < 0 or self.max_backoff < 0:
            raise InvalidInput(
                f"{self} is not a valid policy: it needs at least one attempt, and waits must not be negative"
            )
        kinds: tuple[object, ...] = (*self.on, *self.after_loss)
        if not all(isinstance(kind, type) and issubclass(kind, OstlerError) for kind in kinds):
            raise InvalidInput("`on` and `after_loss` of a `Retry` must contain classes of `ostler.errors`")
        if MethodNotFound in kinds:
            raise InvalidInput("`on` of a `Retry` must not contain `MethodNotFound`: to try again does not help")


class RetryState:
    """The state that the attempts of one request share.

    Args:
        request_id: Its id.
    """

    __slots__ = ("lost_host", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.lost_host = ""
        """The host at which an attempt was lost: it may be executing it, and only it recognises a repeat."""


class RetryAttempts:
    """The attempts of one request.

    Args:
        policy: When to try again.
        clock: The source of time.
        timeout: Seconds that all attempts may take together; None for no limit.
    """

    def __init__(self, policy: Retry, clock: Clock, timeout: float | None) -> None:
        policy.check()
        self._policy = policy
        self._clock = clock
        self._deadline = None if timeout is None else clock.monotonic() + timeout
        self._count = 0
        self._lost: ConnectionLost | None = None

    def remaining_time(self) -> float | None:
        """Return the seconds that the next attempt may take, None for no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.monotonic())

    def delay_after(self, error: OstlerError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            OstlerError: There is none; the error that says most about what became of the request.
        """
        self._count += 1
        if isinstance(error, ConnectionLost):
            self._lost = error
        policy = self._policy
        is_final = isinstance(error, MethodNotFound) or not (
            isinstance(error, self._retried_errors()) or _is_restarting(error)
        )
        if is_final or self._count >= policy.attempts:
            raise self._final_error(error)
        wait: float = min(policy.max_backoff, policy.backoff * 2.0 ** (self._count - 1)) * (1 - os.urandom(1)[0] / 512)
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        if self._deadline is not None and self._clock.monotonic() + wait >= self._deadline:
            raise self._final_error(error)
        return wait

    def run(self, send: Callable[[float | None], T], pause: Callable[[float], object]) -> T:
        """Send until it goes well or there is no further attempt, and return what came of it. Blocks.

        Args:
            send: Sends the request once; is told the seconds that it may take, None for no limit.
            pause: Waits for so many seconds.

        Raises:
            OstlerError: As `after`.
        """
        while True:
            try:
                return send(self.remaining_time())
            except OstlerError as error:
                wait = self.delay_after(error)
            pause(wait)

    async def arun(
        self, send: Callable[[float | None], Awaitable[T]], pause: Callable[[float], Awaitable[object]]
    ) -> T:
        """Do what `run` does, on a loop."""
        while True:
            try:
                return await send(self.remaining_time())
            except OstlerError as error:
                wait = self.delay_after(error)
            await pause(wait)

    def _retried_errors(self) -> tuple[type[OstlerError], ...]:
        return self._policy.on if self._lost is None else (*self._policy.on, *self._policy.after_loss)

    def _final_error(self, error: OstlerError) -> OstlerError:
        # `DaemonNotRunning` would say that nothing was done, but an earlier attempt may have been executed.
        hidden: tuple[type[OstlerError], ...] = (DaemonNotRunning, *self._policy.after_loss)
        told = self._lost if self._lost is not None and isinstance(error, hidden) else error
        if self._count > 1:
            told.details["attempts"] = self._count
        return told


def interruptible_sleep(seconds: float, context: Context | None) -> None:
    """Wait, less when the request that is being served is cancelled.

    Raises:
        Cancelled: It was.
    """
    over = threading.Event()
    forget = context.on_cancel(over.set) if context is not None else noop
    try:
        over.wait(seconds)
    finally:
        forget()
    if context is not None:
        context.check()


def _is_restarting(error: OstlerError) -> bool:
    return isinstance(error, Draining) and error.details.get("state") == "restarting"


def noop() -> None:
    """Do nothing; the default of a callback."""
