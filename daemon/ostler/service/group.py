"""All services of a daemon: started in order of what they need, stopped in the mirrored order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from ostler.errors import Conflict, ServiceError, describe, is_expected, joined
from ostler.service.hooks import HookFailed
from ostler.service.lifecycle import Service
from ostler.service.order import start_order
from ostler.service.spec import ServiceSpec, Surroundings
from ostler.types import ServiceState

_log = logging.getLogger(__name__)
_FOR_DRAINING = 0.75
"""The part of a stop's time that work in flight may have; the rest is for taking things down."""

_FOR_TAKING_DOWN = 8.0
"""Seconds that a service gets at least for that, where the stop has them; else it is done with its `drain_timeout`."""


class StartFailed(ServiceError):
    """Raised when a required service could not be started; says each that failed, and why."""


class ServiceGroup:
    """Owns the services of a daemon. On the loop.

    Services that do not need each other start side by side; one that needs others waits until they are up.

    Args:
        specs: What the services are made from, enabled ones only.
        around: What all services share.
        on_change: Called after the state of a service has changed.

    Raises:
        DependencyCycle: Services depend on each other in a circle.
    """

    def __init__(
        self, specs: Sequence[ServiceSpec], around: Surroundings, on_change: Callable[[Service], None]
    ) -> None:
        by_topic = {spec.topic: spec for spec in specs}
        self._needs = {topic: list(spec.options.depends_on) for topic, spec in by_topic.items()}
        self.order = start_order(self._needs)
        self._around, self._on_change = around, on_change
        self.services = {topic: Service(by_topic[topic], around, on_change) for topic in self.order}
        self._started: dict[str, asyncio.Future[bool]] = {}
        self._limits: set[asyncio.Timeout] = set()

    def __iter__(self) -> Iterator[Service]:
        return iter(self.services.values())

    async def start(self, timeout: float | None = None) -> None:
        """Start all services. A service that fails, or is not up in time, and is not required is left `failed`.

        Args:
            timeout: Seconds that each may take; no limit by default.

        Raises:
            StartFailed: A required service failed, or is not up in time; the others' starts were cancelled, and nothing
                has been stopped yet.
        """
        loop = asyncio.get_running_loop()
        self._started = {topic: loop.create_future() for topic in self.order}
        tasks = []
        required = []
        for service in self:
            limit = None if service.options.required else timeout
            task = loop.create_task(self._start_one(service, limit), name=f"start {service.topic}")
            tasks.append(task)
            if service.options.required:
                required.append(task)
        try:
            await self._wait_for_required(required, timeout)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def extend_start(self, seconds: float) -> None:
        """Give what is still being started so many seconds from now; what it waits for is not its fault."""
        until = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            if limit.when() is not None and not limit.expired():
                limit.reschedule(until)

    @asynccontextmanager
    async def _limited(self, limit: asyncio.Timeout) -> AsyncIterator[None]:
        async with limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def _wait_for_required(self, tasks: Sequence[asyncio.Task[None]], timeout: float | None) -> None:
        limit = asyncio.timeout(timeout)
        try:
            async with self._limited(limit):
                for done in asyncio.as_completed(tasks):
                    await done
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StartFailed(
                f"the services were not up after {timeout:g} s, waiting for {'; '.join(self.waiting_for())}",
                hint="raise `start_timeout` in [daemon], or set `required = false` for what may be missing",
            ) from error

    async def _start_one(self, service: Service, timeout: float | None) -> None:
        topic = service.topic
        limit = asyncio.timeout(timeout)
        try:
            async with self._limited(limit):
                await self._wait_for_needed(service)
                await service.start()
        except TimeoutError as error:
            late = ServiceError(f"it was not up after {timeout:g} s, at {service.step}") if limit.expired() else error
            await self._start_failed(service, late)
        except Exception as error:  # noqa: BLE001 - a defect of one service is that service's failure
            await self._start_failed(service, error)
        finally:
            if not self._started[topic].done():
                self._started[topic].set_result(service.running)

    async def _wait_for_needed(self, service: Service) -> None:
        for needed in self._needs[service.topic]:
            started = self._started.get(needed)
            if started is None:
                raise ServiceError(
                    f"service {service.topic} needs {needed}, which is not enabled here",
                    hint="enable it, or take it out of `depends_on`",
                )
            service.step = f"waiting for service {needed}"
            if not await asyncio.shield(started):
                service.excused = self.services[needed].excused
                raise ServiceError(f"service {service.topic} needs {needed}, which did not start")

    async def start_again(self, spec: ServiceSpec, timeout: float | None) -> None:
        """Build a service anew in the place of one that has ended, and start it.

        Args:
            spec: What it is made from.
            timeout: Seconds that its start may take; None for no limit.

        Raises:
            Conflict: What it was before has not come back from its threads, or what it needs is not up.
            ServiceError: It could not be started; it is `failed`, and the daemon goes on whether it is required or not.
        """
        topic = spec.topic
        if left := self.services[topic].left_behind():
            raise Conflict(
                f"service {topic} cannot be started: of its last run {joined(left)} has not come back",
                hint="what hangs cannot be ended from outside: start it when that has come back (`ostler dump` shows "
                "where it hangs), or restart the daemon",
                topic=topic,
            )  # fmt: skip
        if missing := [each for each in spec.options.depends_on if not self._runs(each)]:
            needs = joined(missing)
            raise Conflict(f"service {topic} needs {needs}, which is not up", hint=f"start {needs} first", topic=topic)
        service = self.services[topic] = Service(spec, self._around, self._on_change)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await service.start()
        except TimeoutError as error:
            late = ServiceError(f"it was not up after {timeout:g} s, at {service.step}") if limit.expired() else error
            await self._could_not_start(service, late)
        except Exception as error:  # noqa: BLE001 - a defect of one service is that service's failure
            await self._could_not_start(service, error)

    async def _could_not_start(self, service: Service, error: Exception) -> None:
        reason = await self._take_down(service, error)
        raise ServiceError(
            f"service {service.topic} could not be started: {reason}",
            hint=getattr(error, "hint", "") or f"fix that, then `ostler service start {service.topic}`",
            topic=service.topic,
        ) from error

    def _runs(self, topic: str) -> bool:
        return topic in self.services and self.services[topic].running

    def cancel_requests(self, topic: str, why: str) -> None:
        """End what is under way of a service that has been drained, and is about to be stopped alone."""
        self._around.host.dispatcher.cancel_requests(topic, why)

    def needed_by(self, topic: str) -> list[str]:
        """Return the services that need another one and have not ended, in the order of their start."""
        return [service.topic for service in self if topic in self._needs[service.topic] and not service.ended]

    async def _take_down(self, service: Service, error: Exception) -> str:
        """Log why a service could not be started, and undo what was set up; return why."""
        reason = describe(error)
        cause = error.__cause__ if is_expected(error) else error
        # That of a hook has been logged where it was called.
        expected = cause is None or isinstance(error, HookFailed) or is_expected(cause)
        _log.error("service %s could not be started: %s", service.topic, reason, exc_info=None if expected else cause)
        timeout = service.options.drain_timeout
        await service.drain(timeout, f"it could not be started: {reason}")
        await service.stop(timeout, failed=reason)
        return reason

    async def _start_failed(self, service: Service, error: Exception) -> None:
        reason = await self._take_down(service, error)
        if service.options.required and not service.excused:
            raise StartFailed(
                f"required service {service.topic} could not be started: {reason}",
                hint=getattr(error, "hint", "") or "mend it, or set `required = false` to run without it",
                service=service.topic,
            ) from error

    def waiting_for(self) -> list[str]:
        """Return what the start is waiting for, a line per service that is not up yet."""
        return [
            f"{service.topic}: {service.step}{f', {service.progress}' if service.progress else ''}"
            for service in self
            if service.states.state is ServiceState.STARTING and service.step
        ]

    async def stop(self, timeout: float) -> list[str]:
        """Drain and stop all services, those that need others first. Safe at every point of the start.

        Services that do not need each other are stopped side by side, so that one that hangs takes no time from others.

        Args:
            timeout: Seconds for all of it. Work in flight is waited for up to each `drain_timeout`, and not so long
                that no time is left for what comes after it.

        Returns:
            What hung, a line each.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = began + timeout
        drained = began + timeout * _FOR_DRAINING

        async def drain(service: Service) -> list[str]:
            rest = max(0.0, min(service.options.drain_timeout, drained - loop.time()))
            return await service.drain(rest, "the daemon is being stopped")

        async def stop(service: Service) -> list[str]:
            # What it was granted for draining and did not need is left for taking it down, and never too little.
            rest = max(_FOR_TAKING_DOWN, began + service.options.drain_timeout - loop.time())
            return await service.stop(max(0.0, min(rest, until - loop.time())))

        for line in await self._mirrored(drain):
            _log.warning("not waited for any longer: %s", line)
        return await self._mirrored(stop)

    async def _mirrored(self, act: Callable[[Service], Awaitable[list[str]]]) -> list[str]:
        """Do something with every service, with each after all that need it; return the lines of all."""
        done = {topic: asyncio.Event() for topic in self.order}

        async def one(service: Service) -> list[str]:
            for topic, needs in self._needs.items():
                if service.topic in needs:
                    await done[topic].wait()
            try:
                return await act(service)
            except Exception as error:  # noqa: BLE001 - the others are to be stopped whatever this one does
                _log.error("service %s could not be stopped: %s", service.topic, describe(error), exc_info=error)
                return []
            finally:
                done[service.topic].set()

        lines = await asyncio.gather(*(one(service) for service in reversed(list(self))))
        return [line for of_one in lines for line in of_one]

    def hurry(self) -> None:
        """Wait for work in flight no longer: the second SIGTERM."""
        for service in self:
            service.hurry = True
