"""All services of a daemon: started in order of what they need, stopped in reverse order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from ostler.errors import Conflict, ServiceError, error_line, is_expected, join_words
from ostler.service.hook_calls import HookFailed
from ostler.service.lifecycle import Service
from ostler.service.service_spec import ServiceContext, ServiceSpec
from ostler.service.start_order import start_order
from ostler.time_text import format_seconds
from ostler.types import ServiceState

_log = logging.getLogger(__name__)
_DRAIN_FRACTION = 0.75
"""The share of a stop's time for work in progress; the rest is for stopping the services."""

_MIN_TEARDOWN_TIME = 8.0
"""The least seconds for stopping a service, if the stop has them; else the wait ends with its `drain_timeout`."""


class StartFailed(ServiceError):
    """Raised when a required service could not be started; names each that failed, and why."""


class ServiceGroup:
    """Owns the services of a daemon. On the loop.

    Services that do not need each other start concurrently; one that needs others waits until they are up.

    Args:
        specs: The specifications of the services, enabled ones only.
        context: The context that all services share.
        on_change: Called after the state of a service has changed.

    Raises:
        DependencyCycle: Services depend on each other in a cycle.
    """

    def __init__(
        self, specs: Sequence[ServiceSpec], context: ServiceContext, on_change: Callable[[Service], None]
    ) -> None:
        by_topic = {spec.topic: spec for spec in specs}
        self._dependencies = {topic: list(spec.options.depends_on) for topic, spec in by_topic.items()}
        self.order = start_order(self._dependencies)
        self._context, self._on_change = context, on_change
        self.services = {topic: Service(by_topic[topic], context, on_change) for topic in self.order}
        self.left_out: Mapping[str, str] = {}
        """The services that are left out of the configuration, with the reason."""
        self._start_futures: dict[str, asyncio.Future[bool]] = {}
        self._start_timeouts: set[asyncio.Timeout] = set()

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self.services.values()))  # a reload may add and remove some meanwhile

    def add(self, spec: ServiceSpec) -> Service:
        """Create a service, which is not started yet, or another one in place of one that has ended.

        Raises:
            DependencyCycle: It needs a service that needs it.
        """
        self.set_dependencies({spec.topic: spec.options.depends_on})
        service = self.services[spec.topic] = Service(spec, self._context, self._on_change)
        self._sort()
        return service

    def remove(self, topic: str) -> None:
        """Forget a service that has ended, and what its callers are told of it."""
        self.services.pop(topic, None)
        self._dependencies.pop(topic, None)
        self._context.host.dispatcher.registry.forget(topic)
        self._sort()

    def set_dependencies(self, depends_on: Mapping[str, Sequence[str]]) -> None:
        """Change what services need: they are stopped before it, and started after it.

        Args:
            depends_on: Topic to the topics it needs; other topics keep theirs.

        Raises:
            DependencyCycle: There is a cycle; nothing has changed.
        """
        changed = {**self._dependencies, **{topic: list(needs) for topic, needs in depends_on.items()}}
        self.order = start_order(changed)
        self._dependencies = changed
        self._sort()

    def _sort(self) -> None:
        self.order = [topic for topic in start_order(self._dependencies) if topic in self.services]
        for topic in self.order:
            self.services[topic] = self.services.pop(topic)

    async def start(self, timeout: float | None = None) -> None:
        """Start all services. A service that fails or is not up in time stays `failed` unless it is required.

        Args:
            timeout: Seconds that each may take; no limit by default.

        Raises:
            StartFailed: A required service failed, or is not up in time; the starts of the others were cancelled, and
                nothing has been stopped yet.
        """
        loop = asyncio.get_running_loop()
        self._start_futures = {topic: loop.create_future() for topic in self.order}
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
        """Give the services that are still starting `seconds` from now, because of a delay that they did not cause."""
        until = asyncio.get_running_loop().time() + seconds
        for limit in self._start_timeouts:
            if limit.when() is not None and not limit.expired():
                limit.reschedule(until)

    @asynccontextmanager
    async def _extendable_timeout(self, limit: asyncio.Timeout) -> AsyncIterator[None]:
        async with limit:
            self._start_timeouts.add(limit)
            try:
                yield
            finally:
                self._start_timeouts.discard(limit)

    async def _wait_for_required(self, tasks: Sequence[asyncio.Task[None]], timeout: float | None) -> None:
        limit = asyncio.timeout(timeout)
        try:
            async with self._extendable_timeout(limit):
                for done in asyncio.as_completed(tasks):
                    await done
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StartFailed(
                f"the services were not up after {format_seconds(timeout or 0)}, "
                f"waiting for {'; '.join(self.start_waits_for())}",
                hint="raise `start_timeout` in [daemon], or set `required = false` for services that are optional",
            ) from error

    async def _start_one(self, service: Service, timeout: float | None) -> None:
        topic = service.topic
        limit = asyncio.timeout(timeout)
        try:
            async with self._extendable_timeout(limit):
                await self._wait_for_dependencies(service)
                await service.start()
        except TimeoutError as error:
            late = _late_error(timeout, service) if limit.expired() else error
            await self._handle_start_failure(service, late)
        except Exception as error:  # noqa: BLE001 - a defect of one service is that service's failure
            await self._handle_start_failure(service, error)
        finally:
            if not self._start_futures[topic].done():
                self._start_futures[topic].set_result(service.is_running)

    async def _wait_for_dependencies(self, service: Service) -> None:
        for needed in self._dependencies[service.topic]:
            started = self._start_futures.get(needed)
            if started is None:
                raise ServiceError(
                    f"service {service.topic} needs {needed}, which is not enabled on this host",
                    hint="enable it, or remove it from `depends_on`",
                )
            service.step = f"waiting for service {needed}"
            if not await asyncio.shield(started):
                service.lacks_tables = self.services[needed].lacks_tables
                raise ServiceError(f"service {service.topic} needs {needed}, which failed to start")

    async def replace_and_start(self, spec: ServiceSpec, timeout: float | None) -> None:
        """Create a service, in place of one that has ended if there is one, and start it.

        Args:
            spec: Its specification.
            timeout: Seconds that its start may take; None for no limit.

        Raises:
            Conflict: Threads of its last run are still running, or a service that it needs is not up.
            ServiceError: It could not be started; it is `failed`, and the daemon continues, even if it is required.
        """
        topic = spec.topic
        before = self.services.get(topic)
        if before is not None and (left := before.leftover_work()):
            raise Conflict(
                f"service {topic} cannot be started: still running from its last run: {join_words(left)}",
                hint="a hanging thread cannot be ended: start the service when it has returned (`ostler dump` shows "
                "where it hangs), or restart the daemon",
                topic=topic,
            )  # fmt: skip
        if missing := [each for each in spec.options.depends_on if not self._is_running(each)]:
            needs = join_words(missing)
            raise Conflict(f"service {topic} needs {needs}, which is not up", hint=f"start {needs} first", topic=topic)
        service = self.add(spec)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await service.start()
        except TimeoutError as error:
            late = _late_error(timeout, service) if limit.expired() else error
            await self._raise_start_error(service, late)
        except Exception as error:  # noqa: BLE001 - a defect of one service is that service's failure
            await self._raise_start_error(service, error)

    async def _raise_start_error(self, service: Service, error: Exception) -> None:
        reason = await self._tear_down_failed(service, error)
        raise ServiceError(
            f"service {service.topic} could not be started: {reason}",
            hint=getattr(error, "hint", "") or f"fix that, then `ostler service start {service.topic}`",
            topic=service.topic,
        ) from error

    def _is_running(self, topic: str) -> bool:
        return topic in self.services and self.services[topic].is_running

    def cancel_requests(self, topic: str, why: str) -> None:
        """Cancel the remaining requests of a drained service that is about to be stopped alone."""
        self._context.host.dispatcher.cancel_requests(topic, why)

    def begin_restart(self, topic: str, why: str, returns_after: float) -> None:
        """See `TopicRegistry.begin_restart`."""
        self._context.host.dispatcher.registry.begin_restart(topic, why, returns_after)

    def set_left_out(self, topics: Mapping[str, str]) -> None:
        """See `TopicRegistry.set_left_out`; kept as `left_out`."""
        self.left_out = topics
        self._context.host.dispatcher.registry.set_left_out(topics)

    def end_restart(self, topic: str) -> None:
        """See `TopicRegistry.end_restart`."""
        self._context.host.dispatcher.registry.end_restart(topic)

    def dependents(self, topic: str) -> list[str]:
        """Return the services that need another one and have not ended, in the order of their start."""
        return [
            service.topic for service in self if topic in self._dependencies[service.topic] and not service.has_ended
        ]

    async def _tear_down_failed(self, service: Service, error: Exception) -> str:
        """Log why a service could not be started, and undo what was set up; return why."""
        reason = error_line(error)
        cause = error.__cause__ if is_expected(error) else error
        # The traceback of a hook has been logged where it was called.
        expected = cause is None or isinstance(error, HookFailed) or is_expected(cause)
        _log.error("service %s could not be started: %s", service.topic, reason, exc_info=None if expected else cause)
        timeout = service.options.drain_timeout
        await service.drain(timeout, f"it could not be started: {reason}")
        await service.stop(timeout, failed=reason)
        return reason

    async def _handle_start_failure(self, service: Service, error: Exception) -> None:
        reason = await self._tear_down_failed(service, error)
        if service.options.required and not service.lacks_tables:
            raise StartFailed(
                f"required service {service.topic} could not be started: {reason}",
                hint=getattr(error, "hint", "") or "fix it, or set `required = false` to run without it",
                service=service.topic,
            ) from error

    def start_waits_for(self) -> list[str]:
        """Return what the start is waiting for, a line per service that is not up yet."""
        return [
            f"{service.topic}: {service.step}{f', {service.progress_text}' if service.progress_text else ''}"
            for service in self
            if service.state_tracker.state is ServiceState.STARTING and service.step
        ]

    async def stop(self, timeout: float) -> list[str]:
        """Drain and stop all services, those that need others first. Safe at every point of the start.

        Services that do not need each other are stopped concurrently, so that a hanging one takes no time from others.

        Args:
            timeout: Seconds for all of it. Work in progress is awaited up to each `drain_timeout`, but some time is
                always left for the steps after it.

        Returns:
            What hung, a line each.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = began + timeout
        drained = began + timeout * _DRAIN_FRACTION

        async def drain(service: Service) -> list[str]:
            rest = max(0.0, min(service.options.drain_timeout, drained - loop.time()))
            return await service.drain(rest, "the daemon is stopping")

        async def stop(service: Service) -> list[str]:
            # The unused time for draining is left for stopping it, and never less than the minimum.
            rest = max(_MIN_TEARDOWN_TIME, began + service.options.drain_timeout - loop.time())
            return await service.stop(max(0.0, min(rest, until - loop.time())))

        for line in await self._in_stop_order(drain):
            _log.warning("no longer waiting for: %s", line)
        return await self._in_stop_order(stop)

    async def _in_stop_order(self, act: Callable[[Service], Awaitable[list[str]]]) -> list[str]:
        """Apply `act` to every service, after all services that need it; return the lines of all."""
        done = {topic: asyncio.Event() for topic in self.order}

        async def one(service: Service) -> list[str]:
            for topic, needs in self._dependencies.items():
                if service.topic in needs and topic in done:
                    await done[topic].wait()
            try:
                return await act(service)
            except Exception as error:  # noqa: BLE001 - the others are to be stopped whatever this one does
                _log.error("service %s could not be stopped: %s", service.topic, error_line(error), exc_info=error)
                return []
            finally:
                done[service.topic].set()

        lines = await asyncio.gather(*(one(service) for service in reversed(list(self))))
        return [line for of_one in lines for line in of_one]

    def skip_drain(self) -> None:
        """Stop waiting for work in progress: the second SIGTERM."""
        for service in self:
            service.should_skip_drain = True


def _late_error(timeout: float | None, service: Service) -> ServiceError:
    return ServiceError(f"it was not up after {format_seconds(timeout or 0)}, at {service.step}")
