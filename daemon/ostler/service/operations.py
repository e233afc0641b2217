"""What an operator does with single services while the daemon runs: drain, resume, stop, start, restart."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ostler.errors import Conflict, Draining, NotFound, OstlerError, joined
from ostler.service.group import ServiceGroup
from ostler.service.lifecycle import Service
from ostler.service.spec import ServiceSpec

T = TypeVar("T")
_TAKING_DOWN = 8.0
"""Seconds that the stop of a service gets at least, beside the time for its work in flight."""


_MOMENT = 2.0
"""Seconds that a reload waits for a service that it starts again; the start goes on after that."""


class ServiceOperations:
    """Carries out what an operator wants of a service, one thing after the other for each. On the loop.

    What was begun goes to its end when who asked for it has gone: a service is not left half taken down.

    Args:
        group: The services.
        specs: Returns what services are made from by the configuration that is in force.
        start_timeout: Returns the seconds that a start may take; None for no limit.
    """

    def __init__(
        self, group: ServiceGroup, specs: Callable[[], Sequence[ServiceSpec]], start_timeout: Callable[[], float | None]
    ) -> None:
        self._group = group
        self._specs = specs
        self._start_timeout = start_timeout
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def drain(self, topic: str, wait: float, why: str) -> list[str]:
        """Have a service take no new work, and wait for what is in flight; return what was still running.

        Args:
            topic: The service.
            wait: Seconds to wait; 0 for its `drain_timeout`.
            why: What callers are told.

        Raises:
            NotFound: No such service runs here.
            Conflict: It is not up.
            Draining: The daemon is being stopped.
        """
        service = self._service(topic)
        if not service.running and not service.draining:
            raise Conflict(f"service {topic} is {service.states.state}, there is nothing to drain", topic=topic)
        # Not in turn: a second one with less patience need not wait for the first.
        return await service.drain(wait or service.options.drain_timeout, why)

    def resume(self, topic: str) -> None:
        """Have a service that drains take work again; one that is up stays so. Raises as `drain`."""
        service = self._service(topic)
        if not service.running:
            self._refuse_in_turn(topic)
            service.resume()

    async def stop(self, topic: str, wait: float, why: str) -> list[str]:
        """Drain a service and take it down; return what hung, a line each. One that has ended stays as it is.

        Args:
            topic: The service.
            wait: As of `drain`.
            why: What is shown with its state.

        Raises:
            NotFound: No such service runs here.
            Conflict: Others that have not ended need it, or it is being started.
            Draining: The daemon is being stopped.
        """
        return await self._in_turn(topic, lambda: self._stop(topic, wait, why))

    async def start(self, topic: str) -> None:
        """Start a service that has stopped or failed, as the configuration now has it; one that drains is resumed.

        One that is up stays so.

        Raises:
            NotFound: No such service runs here.
            Conflict: What is left of its last run hangs, what it needs is not up, or it is in no configuration.
            ServiceError: It could not be started, and is `failed`.
            Draining: The daemon is being stopped.
        """
        await self._in_turn(topic, lambda: self._start(topic))

    async def start_soon(self, topic: str) -> None:
        """Begin to start a service that has failed, and wait a moment for it; how that went is in its state."""
        with suppress(OstlerError, TimeoutError):
            async with asyncio.timeout(_MOMENT):
                await self.start(topic)

    async def restart(self, topic: str, wait: float, why: str) -> None:
        """Stop a service and start it again; one that has ended is started. Raises as `stop` and `start`.

        One with something that is stuck is left as it is: it could not be started after that, and the rest of it works.
        """

        async def work() -> None:
            self._spec(topic)
            self._refuse_stuck(topic)
            await self._stop(topic, wait, why)
            await self._start(topic)

        await self._in_turn(topic, work)

    def forget(self, topic: str) -> None:
        """Let go of a service that has ended and is in no configuration any more.

        Raises:
            Conflict: It has not ended, or is in the configuration: it would be back with the next start.
        """
        service = self._group.services.get(topic)
        if service is None:
            return
        if topic in {spec.topic for spec in self._specs()}:
            raise Conflict(
                f"service {topic} is one of this daemon's", hint="take it out of the configuration first", topic=topic
            )
        if not service.ended:
            raise Conflict(
                f"service {topic} is {service.states.state}", hint=f"`ostler service stop {topic}` first", topic=topic
            )
        del self._group.services[topic]

    async def close(self) -> None:
        """Begin nothing more, and leave what is under way: the services are stopped. May be called twice."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _in_turn(self, topic: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._service(topic)

        async def run() -> T:
            async with self._turns[topic]:
                return await work()

        task = asyncio.get_running_loop().create_task(run(), name=f"operate on service {topic}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._closed:
                raise self._draining() from None
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: who asked for it may have gone

    async def _stop(self, topic: str, wait: float, why: str) -> list[str]:
        service = self._service(topic)
        if service.ended:
            return []
        if not service.running and not service.draining:
            raise Conflict(
                f"service {topic} is {service.states.state}",
                hint="wait until it is up or has failed; `ostler status` says what it waits for",
                topic=topic,
            )
        if needing := self._group.needed_by(topic):
            raise Conflict(
                f"service {topic} is needed by {joined(needing)}", hint=f"stop {joined(needing)} first", topic=topic
            )
        limit = wait or service.options.drain_timeout
        await service.drain(limit, why)
        self._group.cancel_requests(topic, why)
        return await service.stop(max(_TAKING_DOWN, limit), why=why)

    async def _start(self, topic: str) -> None:
        service = self._service(topic)
        if service.running:
            return
        if service.draining:
            service.resume()
            return
        if not service.ended:
            raise Conflict(f"service {topic} is being started", topic=topic)
        await self._group.start_again(self._spec(topic), self._start_timeout())

    def _spec(self, topic: str) -> ServiceSpec:
        for spec in self._specs():
            if spec.topic == topic:
                return spec
        raise Conflict(
            f"service {topic} is not in the configuration of this daemon any more",
            hint="put it back and reload; or `ostler service stop` it, and it is gone with the next start",
            topic=topic,
        )

    def _refuse_stuck(self, topic: str) -> None:
        if stuck := self._service(topic).stuck():
            raise Conflict(
                f"service {topic} is not restarted: {joined(stuck)} would hang on beside its next run",
                hint="it goes on by itself when that comes back; `ostler dump` shows where it hangs; "
                "`ostler service stop` takes the service down all the same",
                topic=topic,
            )  # fmt: skip

    def _refuse_in_turn(self, topic: str) -> None:
        if self._turns[topic].locked():
            raise Conflict(f"service {topic} is being stopped or started", hint="wait for that to end", topic=topic)

    def _service(self, topic: str) -> Service:
        if self._closed:
            raise self._draining()
        service = self._group.services.get(topic)
        if service is None:
            raise NotFound(f"no service {topic} runs here", hint="see `ostler service list`", topic=topic)
        return service

    @staticmethod
    def _draining() -> Draining:
        return Draining("the daemon is being stopped", hint="the next start starts all services")
