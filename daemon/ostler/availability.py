"""Whether a service may be chosen, and why not: the one rule that all code that chooses services uses.

Three questions, each of which includes the one before it. All take a `ServiceStatus`, which is its observer's view.

    absence_reason       is it there at all? What versions of calls may be used goes by this.
    refusal_reason       does it take new work? Requests that name no host go to those that do.
    unavailable_reason   can it do new work? A scheduler chooses among those, and requests prefer them.
"""

from __future__ import annotations

from msgspec.structs import replace

from ostler.time_text import format_duration, format_seconds
from ostler.types import DriverState, DriverStatus, OperatorOverride, ServiceState, ServiceStatus

_ENDED_STATES = (ServiceState.STOPPED, ServiceState.FAILED, ServiceState.GONE)
_ACCEPTING_STATES = (ServiceState.UP, ServiceState.DEGRADED)
_SERVICE_PROBLEM_KEYS = ("is_working", "threads")
"""What of the evidence is about a whole service; the rest is about one of its drivers, or nothing to a choice."""
_DRIVER_PROBLEM_KEYS = ("working", "driver_ready")
DEFAULT_DOWN_TIME = 60.0
"""Seconds without a report after which a service counts as down that does not say its own down time."""
DEFAULT_CAPABILITY_INTERVAL = 60.0
"""Seconds between two reports of what a service can do that does not say its own interval."""
INFINITE_AGE = 1e9
"""Seconds that stand for an age without an end: that of a report of an earlier boot."""
_MAX_MISSED_REPORTS = 3
"""Capability reports of a service that may be missing before its last one counts no more."""
_MIN_LIFETIME = 5.0
"""Seconds for which a report counts at least: a machine that is busy for a moment harms no service that is well."""


def service_down_time(service: ServiceStatus) -> float:
    """Return the seconds without a sign of life after which a service is down, as it says itself."""
    return service.down_time or DEFAULT_DOWN_TIME


def capability_lifetime(capability_interval: float) -> float:
    """Return the seconds for which a report of capabilities counts, by the interval at which they are reported.

    Args:
        capability_interval: As the reporting service says; 0 when it does not.
    """
    return max(_MIN_LIFETIME, _MAX_MISSED_REPORTS * (capability_interval or DEFAULT_CAPABILITY_INTERVAL))


def is_up(state: ServiceState, age: float, down_time: float, link: str = "", *, forced_down: bool = False) -> bool:
    """Return whether a service is up: the one decision, for live services, records and those of other hosts alike.

    Args:
        state: What it last said of itself.
        age: Seconds since that, by a clock that is never set.
        down_time: Seconds after which it is down without a report; 0 when it is not known.
        link: Why its host cannot be reached; empty when it can.
        forced_down: Whether an operator said that it is down: that counts more than all it says itself.
    """
    return not forced_down and not link and state not in _ENDED_STATES and age <= (down_time or DEFAULT_DOWN_TIME)


def observed(service: ServiceStatus) -> ServiceStatus:
    """Return a service with `up` as it follows from all else that is known of it."""
    return replace(service, up=not absence_reason(service))


def absence_reason(service: ServiceStatus) -> str:
    """Return why a service is not there: its host cannot be reached, it has ended, or nothing is heard of it."""
    forced = service.forced_down
    if is_up(service.state, service.age, service.down_time, service.link, forced_down=forced is not None):
        return ""
    if forced is not None:
        return f"{_format_service(service)} was forced down{format_override(forced)}"
    if service.link:
        return service.link
    if service.state in _ENDED_STATES:
        return _format_state(service)
    since = "" if service.age >= INFINITE_AGE else f" for {format_duration(service.age)}"
    limit = format_seconds(service_down_time(service))
    return f"{_format_service(service)} has not reported{since}, its down time is {limit}"


def refusal_reason(service: ServiceStatus) -> str:
    """Return why a service takes no work from here: absent, out of reach, starting, draining, frozen or disabled."""
    if reason := absence_reason(service):
        return reason
    if not service.addressable:
        return f"{service.host} is unreachable from here: it is not in [network.peers]"
    if service.state not in _ACCEPTING_STATES:
        return _format_state(service)
    if service.frozen is not None:
        return f"{_format_service(service)} is frozen{format_override(service.frozen)}"
    if not service.enabled:
        by = f" by {service.disabled_by}" if service.disabled_by else ""
        return f"{_format_service(service)} is disabled{by}{_with_colon(service.disabled_reason)}"
    return ""


def format_override(override: OperatorOverride) -> str:
    """Return who set something and why, to follow the word for it: ` by alice: a new disk`."""
    return f"{f' by {override.by}' if override.by else ''}{_with_colon(override.reason)}"


def unavailable_reason(service: ServiceStatus, backend: str = "") -> str:
    """Return why a service, or one of its backends, is not to be chosen for new work; empty when it may be.

    Args:
        service: The view of it.
        backend: A backend: the name of one of its drivers, or one that the manager has made up, of which nothing is
            known but what is known of its service.
    """
    if reason := refusal_reason(service):
        return reason
    for about in _SERVICE_PROBLEM_KEYS:
        if why := service.evidence.get(about):
            return f"{_format_service(service)}: {why}"
    return _backend_reason(service, backend) if backend else ""


def _backend_reason(service: ServiceStatus, backend: str) -> str:
    for driver in service.drivers:
        if driver.name == backend and driver.state is not DriverState.READY and not _is_reinitialising(driver):
            return f"driver {backend} of {_format_service(service)} is {driver.state}{_with_colon(driver.why)}"
    for about in _DRIVER_PROBLEM_KEYS:
        if why := service.evidence.get(f"{about} {backend}"):
            return f"{_format_service(service)}: {why}"
    return ""


def _is_reinitialising(driver: DriverStatus) -> bool:
    """Return whether a driver is being initialised with nothing against it: for a reload, and its callers wait."""
    return driver.state is DriverState.INITIALISING and driver.tries <= 1


def _format_service(service: ServiceStatus) -> str:
    return f"{service.topic} on {service.host}"


def _format_state(service: ServiceStatus) -> str:
    return f"{_format_service(service)} is {service.state}{_with_colon(service.why)}"


def _with_colon(why: str) -> str:
    return f": {why}" if why else ""
