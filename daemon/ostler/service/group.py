"""All services of a daemon: started in order of what they need, stopped in the mirrored order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from ostler.errors import OstlerError, ServiceError, describe
from ostler.service.lifecycle import Service
from ostler.service.order import start_order
from ostler.service.spec import ServiceSpec, Surroundings
from ostler.types import ServiceState

_log = logging.getLogger(__name__)
_RUNNING = (ServiceState.UP, ServiceState.DEGRADED)


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
        self.order = start_order({topic: spec.options.depends_on for topic, spec in by_topic.items()})
        self.services = {topic: Service(by_topic[topic], around, on_change) for topic in self.order}
        self._started: dict[str, asyncio.Future[bool]] = {}
        self._failures: list[str] = []

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
        except asyncio.CancelledError:
            raise
        except OstlerError as error:
            await self._start_failed(service, error)
        finally:
            if not self._started[topic].done():
                self._started[topic].set_result(service.states.state in _RUNNING)

    async def _wait_for_needed(self, service: Service) -> None:
        for needed in service.options.depends_on:
            started = self._started.get(needed)
            if started is None:
                raise ServiceError(
                    f"service {service.topic} needs {needed}, which is not enabled here",
                    hint="enable it, or take it out of `depends_on`",
                )
            service.step = f"waiting for service {needed}"
            if not await asyncio.shield(started):
                raise ServiceError(f"service {service.topic} needs {needed}, which did not start")

    async def _start_failed(self, service: Service, error: OstlerError) -> None:
        reason = describe(error)
        cause = error.__cause__
        expected = cause is None or isinstance(cause, OstlerError | TimeoutError)
        _log.error("service %s could not be started: %s", service.topic, reason, exc_info=None if expected else cause)
        await service.stop(service.options.drain_timeout, failed=reason)
        if service.options.required:
            raise StartFailed(
                f"required service {service.topic} could not be started: {reason}",
                hint=error.hint or "mend it, or set `required = false` to run without it",
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

        Args:
            timeout: The most seconds that work in flight is waited for; each `drain_timeout` holds too.

        Returns:
            What hung or was still running, a line each.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        left: list[str] = []
        for service in reversed(list(self)):
            if service.states.state in _RUNNING:
                rest = max(0.0, min(service.options.drain_timeout, until - loop.time()))
                left += await service.drain(rest, "the daemon is being stopped")
        for service in reversed(list(self)):
            rest = max(0.5, until - loop.time())
            left += [line for line in await service.stop(rest) if line not in left]
        return left

    def hurry(self) -> None:
        """Wait for work in flight no longer: the second SIGTERM."""
        for service in self:
            service.hurry = True
