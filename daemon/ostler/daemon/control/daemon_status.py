"""The status of the daemon: a summary for operators."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import ostler
from ostler.availability import absence_reason, format_override
from ostler.daemon.process.process_limits import resident_memory
from ostler.log import log_status
from ostler.types import DaemonStatus, DriverState, PluginState, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.config.paths import Paths
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.plugins import PluginHost
    from ostler.reload_types import OptionChange, ReloadResult
    from ostler.service.state_tracker import StateTracker
    from ostler.types import PluginStatus


def status_problems(services: Iterable[ServiceStatus], plugins: Iterable[PluginStatus]) -> list[str]:
    """Return a line for everything that needs attention."""
    lines = []
    for service in services:
        if service.forced_down is not None:  # also of a host that cannot be reached: it is to be undone some day
            forced = format_override(service.forced_down)
            lines.append(f"service {service.topic} on {service.host} was forced down{forced}")
            continue
        if service.link or service.state is ServiceState.GONE:
            continue  # an unreachable host is reported once, and not for each of its services
        if not service.here and service.state is ServiceState.STOPPED:
            continue
        lines += _service_problems(service)
    for plugin in plugins:
        if plugin.state in (PluginState.FAILED, PluginState.FOUND):
            lines.append(f"plugin {plugin.name} is {plugin.state}: {plugin.why}")
    return lines


def _service_problems(service: ServiceStatus) -> list[str]:
    name = f"service {service.topic}" if service.here else f"service {service.topic} on {service.host}"
    lines = []
    # Drivers of other hosts are reported by their daemons; here they are part of their service's report.
    drivers = service.drivers if service.here else []
    if service.state is ServiceState.DEGRADED:
        # Not from `why`, which cannot be split: a sentence may contain any character.
        named = {f"driver {driver.name}" for driver in drivers}
        parts = [part for about, part in service.evidence.items() if about not in named]
        lines += [f"{name}: {part}" for part in (parts if service.evidence else [service.why])]
    elif service.state is not ServiceState.UP:
        lines.append(f"{name} is {service.state}" + (f": {service.why}" if service.why else ""))
    elif not service.up:
        lines.append(f"{name} is down: {absence_reason(service)}")
    if service.frozen is not None:
        lines.append(f"{name} is frozen{format_override(service.frozen)}")
    if not service.enabled:
        lines.append(f"{name} is disabled by {service.disabled_by}: {service.disabled_reason}")
    lines += [
        f"driver {driver.name} of {service.topic} is {driver.state}: {driver.why}"
        for driver in drivers
        if driver.state not in (DriverState.READY, DriverState.STOPPED)
    ]
    return lines


class StatusReporter:
    """Collects the status of the daemon. On the loop.

    Args:
        paths: Where its sockets are.
        started_at: When it was started, in wall time.
        state_tracker: Its state.
        plugins: The plugins, with their states.
        parts: The services, and what is theirs.
        last_reload: Returns the result of the last reload, if there was one.
        pending_restart: Returns the changes that wait for a new process.
        problem_sources: Return lines for problems other than the states of services and plugins.
    """

    def __init__(
        self,
        paths: Paths,
        started_at: float,
        state_tracker: StateTracker,
        plugins: PluginHost,
        parts: DaemonParts,
        *,
        last_reload: Callable[[], ReloadResult | None],
        pending_restart: Callable[[], list[OptionChange]],
        problem_sources: Sequence[Callable[[], Iterable[str]]],
    ) -> None:
        self._paths = paths
        self._started_at = started_at
        self._state_tracker = state_tracker
        self._plugins = plugins
        self._parts = parts
        self._last_reload = last_reload
        self._pending_restart = pending_restart
        self._problem_sources = problem_sources

    async def status(self) -> DaemonStatus:
        """Return a summary of the daemon: itself, its services merged with the table, plugins, and problems."""
        services, plugins = await self._parts.runtime.rows(), self._plugins.statuses()
        log_destination, log_problems = log_status()
        others = [line for source in self._problem_sources for line in source()]
        states, messages = self._state_tracker, self._parts.messaging
        return DaemonStatus(
            host=self._parts.runtime.host,
            version=ostler.__version__,
            pid=os.getpid(),
            state=states.state,
            why=states.why,
            since=states.since,
            started=self._started_at,
            rpc=self._paths.rpc_address,
            events=self._paths.events_address,
            memory=resident_memory(),
            threads=threading.active_count(),
            services=services,
            plugins=plugins,
            not_well=[*status_problems(services, plugins), *others, *log_problems],
            last_reload=self._last_reload(),
            needs_restart=self._pending_restart(),
            log=log_destination,
            network=messages.network_address,
            callers_memory=messages.quotas.memory_accounts.held_bytes,
            max_memory=messages.quotas.memory_accounts.limit,
        )
