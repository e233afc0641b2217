"""The status of the daemon: a summary for operators."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import ostler
from ostler.availability import absence_reason
from ostler.daemon.process.process_limits import resident_memory
from ostler.types import DaemonStatus, DriverState, PluginState, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.daemon.daemon import Daemon
    from ostler.types import PluginStatus


def status_problems(services: Iterable[ServiceStatus], plugins: Iterable[PluginStatus]) -> list[str]:
    """Return a line for everything that needs attention."""
    lines = []
    for service in services:
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
    if not service.enabled:
        lines.append(f"{name} is disabled by {service.disabled_by}: {service.disabled_reason}")
    lines += [
        f"driver {driver.name} of {service.topic} is {driver.state}: {driver.why}"
        for driver in drivers
        if driver.state not in (DriverState.READY, DriverState.STOPPED)
    ]
    return lines


def daemon_status(
    daemon: Daemon, services: Sequence[ServiceStatus], other_problems: Sequence[str], log: str = ""
) -> DaemonStatus:
    """Return the status of a daemon.

    Args:
        daemon: The daemon.
        services: Its services, merged with the table.
        other_problems: Lines for further problems: the watchdog's evidence, an unreachable database.
        log: Where the log goes, and its problems.
    """
    plugins = daemon.plugins.statuses()
    states, messages = daemon.state_tracker, daemon.messaging
    return DaemonStatus(
        host=daemon.host,
        version=ostler.__version__,
        pid=os.getpid(),
        state=states.state,
        why=states.why,
        since=states.since,
        started=daemon.started_at,
        rpc=daemon.paths.rpc_address,
        events=daemon.paths.events_address,
        memory=resident_memory(),
        threads=threading.active_count(),
        services=list(services),
        plugins=plugins,
        not_well=[*status_problems(services, plugins), *other_problems],
        last_reload=daemon.reloader.last_result,
        log=log,
        network=messages.network_address if messages is not None else "",
        callers_memory=messages.quotas.memory_accounts.held_bytes if messages is not None else 0,
        max_memory=messages.quotas.memory_accounts.limit if messages is not None else 0,
    )
