"""Whether the daemon lives, has started and can work, by the verdicts of its watchdog and of its services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ostler.types import ServiceState

if TYPE_CHECKING:
    from ostler.service import Service
    from ostler.service.state_tracker import StateTracker


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a service of this host can work.

    `ready` says that it is up or degraded and takes new work; `why` says what its state, `evidence` what its problems
    are, by what they concern.
    """

    topic: str
    state: ServiceState
    ready: bool
    required: bool
    why: str = ""
    evidence: dict[str, str] = {}


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a daemon.

    `live` says that nothing is missing for which the watchdog waits (`stale` has a line each). `started` says that the
    start has ended well; until then `waiting_for` has a line for each thing it waits for. `ready` says that the daemon
    is live, has started, is not stopping, and that each required service works; `why` has a line for each reason if
    not.
    """

    host: str
    state: ServiceState
    live: bool
    started: bool
    ready: bool
    stale: list[str] = []
    waiting_for: list[str] = []
    why: list[str] = []
    services: list[ServiceHealth] = []


def service_health(service: Service) -> ServiceHealth:
    """Return whether a service can work, by its own word. On the loop."""
    tracker = service.state_tracker
    why = tracker.why
    if service.frozen is not None and service.is_running:
        why = f"frozen by {service.frozen.by}: {service.frozen.reason}"
    return ServiceHealth(
        topic=service.topic,
        state=tracker.state,
        ready=service.is_running and service.frozen is None,
        required=service.options.required,
        why=why,
        evidence=tracker.problems,
    )


def health_report(
    host: str,
    tracker: StateTracker,
    services: Iterable[Service],
    *,
    stale: Sequence[str],
    is_started: bool,
    waiting_for: Callable[[], list[str]],
) -> HealthReport:
    """Return the health of the daemon. On the loop.

    Args:
        host: Its host.
        tracker: Its state.
        services: Its services.
        stale: The parts without a sign of life for which the watchdog waits, a line each.
        is_started: Whether the start has ended well.
        waiting_for: Returns what the start waits for, a line each.
    """
    found = [service_health(service) for service in services]
    is_stopping = tracker.state in (ServiceState.DRAINING, ServiceState.STOPPED)
    why = [f"no sign of life: {line}" for line in stale]
    if is_stopping:
        why.append(f"the daemon is {tracker.state}{f': {tracker.why}' if tracker.why else ''}")
    elif not is_started:
        why.append("the daemon is starting")
    else:
        why += [_not_working(each) for each in found if each.required and not each.ready]
    return HealthReport(
        host=host,
        state=tracker.state,
        live=not stale,
        started=is_started,
        ready=not why,
        stale=list(stale),
        waiting_for=[] if is_started or is_stopping else waiting_for(),
        why=why,
        services=found,
    )


def _not_working(service: ServiceHealth) -> str:
    return f"service {service.topic} is {service.state}{f': {service.why}' if service.why else ''}"
