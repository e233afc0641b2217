"""All services of a daemon: started in order of what they need, stopped in the mirrored order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ostler.errors import ServiceError, describe, is_expected
from ostler.service.hooks import HookFailed
from ostler.service.lifecycle import Service
from ostler.service.order import start_order
from ostler.service.spec import ServiceSpec, Surroundings
from ostler.types import ServiceState

_log = logging.getLogger(__name__)
_FOR_DRAINING = 0.75
"""The part of a stop's time that work in flight may have; the rest is for taking things down."""


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
        self.services = {topic: Service(by_topic[topic], around, on_change) for topic in self.order}
        self._started: dict[str, asyncio.Future[bool]] = {}

    def __iter__(self) -> Iterator[Service]:
        return iter(self.services.values())

    async def start(self) -> None:
        """Start all services. A failed service that is not required is stopped and left `failed`.

        Raises:
            StartFailed: A required service failed; the others' starts were cancelled, and nothing has been stopped yet.
        """
        loop = asyncio.get_running_loop()
        self._started = {topic: loop.create_future() for topic in self.order}
        tasks = [loop.create_task(self._start_one(service), name=f"start {service.topic}") for service in self]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_one(self, service: Service) -> None:
        topic = service.topic
        try:
            await self._wait_for_needed(service)
            await service.start()
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
                raise ServiceError(f"service {service.topic} needs {needed}, which did not start")

    async def _start_failed(self, service: Service, error: Exception) -> None:
        reason = describe(error)
        cause = error.__cause__ if is_expected(error) else error
        # That of a hook has been logged where it was called.
        expected = cause is None or isinstance(error, HookFailed) or is_expected(cause)
        _log.error("service %s could not be started: %s", service.topic, reason, exc_info=None if expected else cause)
        timeout = service.options.drain_timeout
        await service.drain(timeout, f"it could not be started: {reason}")
        await service.stop(timeout, failed=reason)
        if service.options.required:
            raise StartFailed(
                f"required service {service.topic} could not be started: {reason}",
                hint=getattr(error, "hint", "") or "mend it, or set `required = false` to run without it",
                service=service.topic,
            ) from error

    def waiting_for(self) -> list[str]:
        """Return what the start is waiting for, a line per service that is not up yet."""
        return [
            f"{service.topic}: {service.step}"
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
        until = loop.time() + timeout
        drained = loop.time() + timeout * _FOR_DRAINING

        async def drain(service: Service) -> list[str]:
            rest = max(0.0, min(service.options.drain_timeout, drained - loop.time()))
            return await service.drain(rest, "the daemon is being stopped")

        async def stop(service: Service) -> list[str]:
            return await service.stop(max(0.0, until - loop.time()))

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
