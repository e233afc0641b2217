"""When a request that failed is sent again, and how long that waits. No I/O."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from ostler.clock import Clock
from ostler.errors import Busy, ConnectionLost, InvalidInput, NotRunning, OstlerError

T = TypeVar("T")


class Retry(NamedTuple):
    """A policy: how often a request is sent in all, how long to wait in between, and after which errors.

    All attempts have one request id, and together the time of one call. A server that has had the request already
    answers with what the first attempt came to, or is coming to, and does not run it again; that ends when it is
    restarted, or `retry_age` is over.

    By default only errors are tried again after which the work was not begun for sure. With `ConnectionLost` in `on` a
    request is tried again over a restart of the daemon too, which may run it twice: for methods that may.

    Args:
        attempts: How often it is sent at most, the first time included.
        backoff: Seconds before the second attempt; doubled each time, less up to a half at random.
        longest: The longest such wait in seconds. A `retry_after` that the server names is waited for in any case.
        on: The classes of errors after which it is sent again.
    """

    attempts: int = 5
    backoff: float = 0.2
    longest: float = 10.0
    on: tuple[type[OstlerError], ...] = (Busy, NotRunning)

    def check(self) -> None:
        """Refuse a policy that makes no sense.

        Raises:
            InvalidInput: Says what is wrong with it.
        """
        if self.attempts < 1 or self.backoff < 0 or self.longest < 0:
            raise InvalidInput(f"{self} is no policy: it takes at least one attempt, and waits no negative time")
        kinds: tuple[object, ...] = self.on
        if not all(isinstance(kind, type) and issubclass(kind, OstlerError) for kind in kinds):
            raise InvalidInput("`on` of a `Retry` takes classes of `ostler.errors`")


_LONGEST_ASKED = 300.0
"""Seconds that a server can have its callers wait at most before they try again."""


class Attempts:
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
        self._until = None if timeout is None else clock.monotonic() + timeout
        self._made = 0
        self._lost: ConnectionLost | None = None

    def left(self) -> float | None:
        """Return the seconds that the next attempt may take, None for no limit."""
        return None if self._until is None else max(0.0, self._until - self._clock.monotonic())

    def after(self, error: OstlerError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            OstlerError: There is none; the error that says most about what became of the request.
        """
        self._made += 1
        if isinstance(error, ConnectionLost):
            self._lost = error
        policy = self._policy
        if self._made >= policy.attempts or not isinstance(error, policy.on or ()):
            raise self._last(error)
        wait: float = min(policy.longest, policy.backoff * 2.0 ** (self._made - 1)) * (1 - os.urandom(1)[0] / 512)
        asked = error.facts.get("retry_after")
        if isinstance(asked, int | float):
            # The server's wish, and no more than that: one that is hostile or wrong may ask for centuries.
            wait = max(wait, min(float(asked), _LONGEST_ASKED))
        if self._until is not None and self._clock.monotonic() + wait >= self._until:
            raise self._last(error)
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
                return send(self.left())
            except OstlerError as error:
                wait = self.after(error)
            pause(wait)

    async def arun(
        self, send: Callable[[float | None], Awaitable[T]], pause: Callable[[float], Awaitable[object]]
    ) -> T:
        """Do what `run` does, on a loop."""
        while True:
            try:
                return await send(self.left())
            except OstlerError as error:
                wait = self.after(error)
            await pause(wait)

    def _last(self, error: OstlerError) -> OstlerError:
        # "Nobody listens" would say that nothing was done, and an attempt before this one may have been.
        told = self._lost if self._lost is not None and isinstance(error, NotRunning) else error
        if self._made > 1:
            told.facts["attempts"] = self._made
        return told
