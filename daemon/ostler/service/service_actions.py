"""Operations on single services of a running daemon: drain, resume, stop, start, restart."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ostler.errors import Conflict, Draining, NotFound, OstlerError, join_words
from ostler.service.lifecycle import Service
from ostler.service.service_group import ServiceGroup
from ostler.service.service_spec import ServiceSpec

T = TypeVar("T")
_MIN_TEARDOWN_TIME = 8.0
"""The least seconds for the stop of a service, in addition to the time for its work in progress."""


RETURN_DELAY = 1.0
"""Seconds after which callers of a service that is being restarted are told to try again."""

_START_WAIT = 2.0
"""Seconds that a reload waits for a service that it starts again; the start itself continues."""


class ServiceActions:
    """Executes operations on services, one at a time for each service. On the loop.

    An operation runs to its end even if its caller has gone: a service is never left half stopped.

    Args:
        group: The services.
        specs: Returns the specifications by the configuration in effect.
        start_timeout: Returns the seconds that a start may take; None for no limit.
    """

    def __init__(
        self, group: ServiceGroup, specs: Callable[[], Sequence[ServiceSpec]], start_timeout: Callable[[], float | None]
    ) -> None:
        self._group = group
        self._specs = specs
        self._start_timeout = start_timeout
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def drain(self, topic: str, wait: float, why: str) -> list[str]:
        """Have a service refuse new work, and wait for work in progress; return what was still running.

        Args:
            topic: The service.
            wait: Seconds to wait; 0 for its `drain_timeout`.
            why: What callers are told.

        Raises:
            NotFound: There is no such service on this host.
            Conflict: It is not up.
            Draining: The daemon is stopping.
        """
        service = self._service(topic)
        if not service.is_running and not service.is_draining:
            raise Conflict(f"service {topic} is {service.state_tracker.state}, nothing to drain", topic=topic)
        # Not queued: a second one with a shorter timeout need not wait for the first.
        return await service.drain(wait or service.options.drain_timeout, why)

    def resume(self, topic: str) -> None:
        """Have a draining service accept work again; no effect on one that is up. Raises as `drain`."""
        service = self._service(topic)
        if not service.is_running:
            self._raise_if_locked(topic)
            service.resume()

    async def stop(self, topic: str, wait: float, why: str) -> list[str]:
        """Drain and stop a service; return what hung, a line each. No effect on one that has ended.

        Args:
            topic: The service.
            wait: See `drain`.
            why: The reason shown with its state.

        Raises:
            NotFound: There is no such service on this host.
            Conflict: Services that have not ended need it, or it is starting.
            Draining: The daemon is stopping.
        """
        return await self._run_locked(topic, lambda: self._stop(topic, wait, why))

    async def start(self, topic: str, spec: ServiceSpec | None = None) -> None:
        """Start a stopped or failed service; resume a draining one.

        Args:
            topic: The service.
            spec: Its specification; that of the current configuration by default.

        No effect on one that is up.

        Raises:
            NotFound: There is no such service on this host.
            Conflict: Threads of its last run hang, a service it needs is not up, or it is not in the configuration.
            ServiceError: It could not be started, and is `failed`.
            Draining: The daemon is stopping.
        """
        await self._run_locked(topic, lambda: self._start(topic, spec))

    async def start_new(self, spec: ServiceSpec) -> None:
        """Start a service that this host does not have yet. Raises as `start`: then it is there, and has failed.

        Args:
            spec: Its specification.
        """
        self._raise_if_closed()
        await self._run(spec.topic, lambda: self._group.replace_and_start(spec, self._start_timeout()))

    async def stop_to_replace(self, topic: str, why: str, *, returns: bool) -> None:
        """Stop a service for a reload, which starts it again or removes it. Raises as `restart`.

        Args:
            topic: The service.
            why: The reason that callers get.
            returns: Whether it is started again: callers are then told when to try again.
        """

        async def work() -> None:
            if returns:
                self._raise_if_stuck(topic)
            await self._stop(topic, 0.0, why, returns_after=RETURN_DELAY if returns else None)

        await self._run_locked(topic, work)

    async def begin_start(self, topic: str) -> None:
        """Start a failed service, and wait a short time for it; the result is in its state."""
        with suppress(OstlerError, TimeoutError):
            async with asyncio.timeout(_START_WAIT):
                await self.start(topic)

    async def restart(self, topic: str, wait: float, why: str) -> None:
        """Stop a service and start it again; start one that has ended. Raises as `stop` and `start`.

        A service with a stuck part is not restarted: it could not be started afterwards, and the rest of it works.
        """

        async def work() -> None:
            spec = self._spec(topic)
            self._raise_if_stuck(topic)
            await self._stop(topic, wait, why, returns_after=RETURN_DELAY)
            await self._start(topic, spec)

        await self._run_locked(topic, work)

    def forget(self, topic: str) -> None:
        """Forget a service that has ended and is no longer in the configuration.

        Raises:
            Conflict: It has not ended, or is in the configuration: the next start would start it again.
        """
        service = self._group.services.get(topic)
        if service is None:
            return
        if topic in {spec.topic for spec in self._specs()}:
            raise Conflict(
                f"service {topic} is configured in this daemon",
                hint="remove it from the configuration first",
                topic=topic,
            )
        if not service.has_ended:
            raise Conflict(
                f"service {topic} is {service.state_tracker.state}",
                hint=f"`ostler service stop {topic}` first",
                topic=topic,
            )
        del self._group.services[topic]

    async def close(self) -> None:
        """Refuse new operations, and abandon those in progress: the services are stopped. May be called twice."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_locked(self, topic: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._service(topic)
        return await self._run(topic, work)

    async def _run(self, topic: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            async with self._locks[topic]:
                return await work()

        task = asyncio.get_running_loop().create_task(run(), name=f"operate on service {topic}")
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._is_closed:
                raise self._stopping_error() from None
            raise

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: the caller may have gone

    async def _stop(self, topic: str, wait: float, why: str, *, returns_after: float | None = None) -> list[str]:
        service = self._service(topic)
        if service.has_ended:
            return []
        if not service.is_running and not service.is_draining:
            raise Conflict(
                f"service {topic} is {service.state_tracker.state}",
                hint="wait until it is up or has failed; `ostler status` shows what it waits for",
                topic=topic,
            )
        if needing := self._group.dependents(topic):
            raise Conflict(
                f"service {topic} is needed by {join_words(needing)}",
                hint=f"stop {join_words(needing)} first",
                topic=topic,
            )
        limit = wait or service.options.drain_timeout
        await service.drain(limit, why, returns_after=returns_after)
        self._group.cancel_requests(topic, why)
        return await service.stop(max(_MIN_TEARDOWN_TIME, limit), why=why)

    async def _start(self, topic: str, spec: ServiceSpec | None) -> None:
        service = self._service(topic)
        if service.is_running:
            return
        if service.is_draining:
            service.resume()
            return
        if not service.has_ended:
            raise Conflict(f"service {topic} is starting", topic=topic)
        await self._group.replace_and_start(spec or self._spec(topic), self._start_timeout())

    def _spec(self, topic: str) -> ServiceSpec:
        for spec in self._specs():
            if spec.topic == topic:
                return spec
        raise Conflict(
            f"service {topic} is no longer in the configuration of this daemon",
            hint="add it again and reload; or stop it with `ostler service stop`, the next start does without it",
            topic=topic,
        )

    def _raise_if_stuck(self, topic: str) -> None:
        if stuck := self._service(topic).stuck_work():
            raise Conflict(
                f"service {topic} was not restarted: {join_words(stuck)} would keep hanging during its next run",
                hint="the service recovers automatically when that returns; `ostler dump` shows where it hangs; "
                "`ostler service stop` stops the service nevertheless",
                topic=topic,
            )  # fmt: skip

    def _raise_if_locked(self, topic: str) -> None:
        if self._locks[topic].locked():
            raise Conflict(f"service {topic} is stopping or starting", hint="wait until that has finished", topic=topic)

    def _service(self, topic: str) -> Service:
        self._raise_if_closed()
        service = self._group.services.get(topic)
        if service is None and topic in self._group.left_out:
            raise NotFound(
                f"service {topic} is left out: {self._group.left_out[topic]}",
                hint="`ostler reload` adds it when its plugin works; `ostler plugin list` shows that",
                topic=topic,
            )
        if service is None:
            raise NotFound(
                f"service {topic} is not running on this host", hint="see `ostler service list`", topic=topic
            )
        return service

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise self._stopping_error()

    @staticmethod
    def _stopping_error() -> Draining:
        return Draining("the daemon is stopping", hint="the next start starts all services")
