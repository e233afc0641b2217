"""Whether a service may be chosen, and why not: the one judgement that everybody who chooses goes by.

Three questions, each of which includes the one before it. All take a `ServiceStatus`, which is its observer's view.

    absence_reason       is it there at all? What versions of calls may be used goes by this.
    refusal_reason       does it take new work? Requests that name no host go to those that do.
    unavailable_reason   can it do new work? A scheduler chooses among those, and requests prefer them.
"""

from __future__ import annotations

from ostler.types import DriverState, DriverStatus, ServiceState, ServiceStatus

_ENDED = (ServiceState.STOPPED, ServiceState.FAILED, ServiceState.GONE)
_TAKES_WORK = (ServiceState.UP, ServiceState.DEGRADED)
_OF_SERVICE = ("is_working", "threads")
"""What of the evidence is about a whole service; the rest is about one of its drivers, or nothing to a choice."""
_OF_DRIVER = ("working", "driver_ready")
DEFAULT_DOWN_TIME = 60.0
"""Seconds without a report after which a service counts as down that does not say its own down time."""
DEFAULT_CAPABILITY_INTERVAL = 60.0
"""Seconds between two reports of what a service can do that does not say its own interval."""
LONG_AGO = 1e9
"""Seconds that stand for an age without an end: that of a report of an earlier boot."""
_REPORTS_MISSED = 3
"""Capability reports of a service that may be missing before its last one counts no more."""
_LEAST_LIFETIME = 5.0
"""Seconds for which a report counts at least: a machine that is busy for a moment harms no service that is well."""


def down_time_of(service: ServiceStatus) -> float:
    """Return the seconds without a sign of life after which a service is down, as it says itself."""
    return service.down_time or DEFAULT_DOWN_TIME


def capability_lifetime(capability_interval: float) -> float:
    """Return the seconds for which a report of capabilities counts, by the interval at which they are reported.

    Args:
        capability_interval: As the reporting service says; 0 when it does not.
    """
    return max(_LEAST_LIFETIME, _REPORTS_MISSED * (capability_interval or DEFAULT_CAPABILITY_INTERVAL))


def absence_reason(service: ServiceStatus) -> str:
    """Return why a service is not there: its host cannot be reached, it has ended, or nothing is heard of it."""
    if service.link:
        return service.link
    if service.state in _ENDED:
        return _state_of(service)
    if service.age > down_time_of(service):
        since = "" if service.age >= LONG_AGO else f" for {service.age:.0f} s"
        return f"{_name(service)} has not reported{since}, its down time is {down_time_of(service):g} s"
    return ""


def refusal_reason(service: ServiceStatus) -> str:
    """Return why a service takes no new work from here: it is absent, out of reach, starts, drains, or is disabled."""
    if reason := absence_reason(service):
        return reason
    if not service.addressable:
        return f"{service.host} cannot be reached from here: it is not in [network.peers]"
    if service.state not in _TAKES_WORK:
        return _state_of(service)
    if not service.enabled:
        by = f" by {service.disabled_by}" if service.disabled_by else ""
        return f"{_name(service)} is disabled{by}{_colon(service.disabled_reason)}"
    return ""


def unavailable_reason(service: ServiceStatus, backend: str = "") -> str:
    """Return why a service, or one of its backends, is not to be chosen for new work; empty when it may be.

    Args:
        service: The view of it.
        backend: A backend: the name of one of its drivers, or one that the manager has made up, of which nothing is
            known but what is known of its service.
    """
    if reason := refusal_reason(service):
        return reason
    for about in _OF_SERVICE:
        if why := service.evidence.get(about):
            return f"{_name(service)}: {why}"
    return _backend_reason(service, backend) if backend else ""


def _backend_reason(service: ServiceStatus, backend: str) -> str:
    for driver in service.drivers:
        if driver.name == backend and driver.state is not DriverState.READY and not _renewed(driver):
            return f"driver {backend} of {_name(service)} is {driver.state}{_colon(driver.why)}"
    for about in _OF_DRIVER:
        if why := service.evidence.get(f"{about} {backend}"):
            return f"{_name(service)}: {why}"
    return ""


def _renewed(driver: DriverStatus) -> bool:
    """Return whether a driver is being initialised with nothing against it: for a reload, and its callers wait."""
    return driver.state is DriverState.INITIALISING and driver.tries <= 1


def _name(service: ServiceStatus) -> str:
    return f"{service.topic} on {service.host}"


def _state_of(service: ServiceStatus) -> str:
    return f"{_name(service)} is {service.state}{_colon(service.why)}"


def _colon(why: str) -> str:
    return f": {why}" if why else ""
