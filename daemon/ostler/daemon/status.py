"""The daemon at one glance: what an operator sees first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import ostler
from ostler.availability import absence_reason
from ostler.daemon.limits import memory_in_use
from ostler.types import DaemonStatus, DriverState, PluginState, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon
    from ostler.types import PluginStatus


def not_well(services: Iterable[ServiceStatus], plugins: Iterable[PluginStatus]) -> list[str]:
    """Return a line for everything that needs attention."""
    lines = []
    for service in services:
        if service.link or service.state is ServiceState.GONE:
            continue  # that a host cannot be reached is said once, and not for each of its services
        if not service.here and service.state is ServiceState.STOPPED:
            continue
        lines += _of_service(service)
    for plugin in plugins:
        if plugin.state in (PluginState.FAILED, PluginState.FOUND):
            lines.append(f"plugin {plugin.name} is {plugin.state}: {plugin.why}")
    return lines


def _of_service(service: ServiceStatus) -> list[str]:
    name = f"service {service.topic}" if service.here else f"service {service.topic} on {service.host}"
    lines = []
    # Those of other hosts are their daemons' to tell; here they stand in what is told of their service.
    drivers = service.drivers if service.here else []
    if service.state is ServiceState.DEGRADED:
        # Not from `why`, in which nothing tells where one ends: a sentence may have any character in it.
        named = {f"driver {driver.name}" for driver in drivers}
        parts = [part for about, part in service.evidence.items() if about not in named]
        lines += [f"{name}: {part}" for part in (parts if service.evidence else [service.why])]
    elif service.state is not ServiceState.UP:
        lines.append(f"{name} is {service.state}" + (f": {service.why}" if service.why else ""))
    elif not service.up:
        lines.append(f"{name} is down: {absence_reason(service)}")
    if not service.enabled:
        lines.append(f"{name} is disabled by {service.disabled_by}: {service.disabled_reason}")
    lines += [
        f"driver {driver.name} of {service.topic} is {driver.state}: {driver.why}"
        for driver in drivers
        if driver.state not in (DriverState.READY, DriverState.STOPPED)
    ]
    return lines


def daemon_status(
    daemon: Daemon, services: Sequence[ServiceStatus], extra: Sequence[str], log: str = ""
) -> DaemonStatus:
    """Return the status of a daemon.

    Args:
        daemon: The daemon.
        services: Its services, merged with the table.
        extra: Lines of what else is not well: the watchdog's evidence, an unreachable database.
        log: Where the log is, and what happened to it.
    """
    plugins = daemon.plugins.records()
    states, messages = daemon.states, daemon.messages
    return DaemonStatus(
        host=daemon.host,
        version=ostler.__version__,
        pid=os.getpid(),
        state=states.state,
        why=states.why,
        since=states.since,
        started=daemon.began,
        rpc=daemon.paths.rpc_address,
        events=daemon.paths.events_address,
        memory=memory_in_use(),
        threads=threading.active_count(),
        services=list(services),
        plugins=plugins,
        not_well=[*not_well(services, plugins), *extra],
        last_reload=daemon.reloader.last,
        log=log,
        network=messages.network if messages is not None else "",
        callers_memory=messages.shares.memory.held if messages is not None else 0,
        max_memory=messages.shares.memory.limit if messages is not None else 0,
    )
