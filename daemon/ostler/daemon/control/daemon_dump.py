"""What the daemon is doing right now, in detail: for `ostler dump` and SIGUSR2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler.daemon.process.stack_dump import task_stacks, thread_stacks

if TYPE_CHECKING:
    from ostler.daemon.active_configuration import ActiveConfiguration
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.service import Service
    from ostler.service.state_tracker import StateTracker
    from ostler.store import Store
    from ostler.types import PluginStatus


def daemon_dump(
    state_tracker: StateTracker,
    active: ActiveConfiguration,
    stale_signals: list[str],
    *,
    store: Store | None,
    parts: DaemonParts | None,
) -> dict[str, Any]:
    """Return what the daemon is doing right now; the configuration is masked. On the loop.

    Args:
        state_tracker: Its state.
        active: Its configuration.
        stale_signals: What the watchdog has no fresh evidence of, a line each.
        store: Its database; None before it is open.
        parts: Its other parts; None before there are any.
    """
    services = list(parts.runtime.group) if parts is not None else []
    return {
        "daemon": {
            "host": active.running.daemon.host,
            "state": str(state_tracker.state),
            "why": state_tracker.why,
        },
        "services": {service.topic: _service_dump(service) for service in services},
        "plugins": [_plugin_dump(plugin) for plugin in active.plugins.statuses()],
        "messages": parts.messaging.stats() if parts is not None else {},
        "audit": parts.audit_service.log.stats() if parts is not None else {},
        "store": store.stats() if store is not None else {},
        "watchdog": stale_signals,
        "tasks": task_stacks(),
        "threads": thread_stacks(),
        "configuration": {v.path: f"{v.value!r} ({v.origin})" for v in active.effective_values(services)},
    }


def _plugin_dump(plugin: PluginStatus) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "state": str(plugin.state),
        "why": plugin.why,
        "since": plugin.since,
        "errors": plugin.errors,
        "last_error": plugin.last_error,
        "crashes": plugin.crashes,
    }


def _service_dump(service: Service) -> dict[str, Any]:
    return {
        "state": str(service.state_tracker.state),
        "why": service.state_tracker.why,
        "step": service.step,
        "working": service.in_progress(),
        "background": [f"{task.name} ({task.kind}) {task.state}" for task in service.status().tasks],
    }
