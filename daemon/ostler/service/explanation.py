"""Why a service is not up and well: each cause with its sentence, since when, and what would bring it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ostler.availability import INFINITE_AGE, absence_reason, format_override, is_up
from ostler.bounds import WHY_LIMIT, truncate
from ostler.time_text import format_duration, format_moment
from ostler.types import (
    BreakerState,
    CauseKind,
    DriverState,
    DriverStatus,
    ServiceState,
    ServiceStatus,
    StatusCause,
    Upgrade,
)
from ostler.version_numbers import parse_version

SCHEDULER_TOPIC = "scheduler"
_NEVER_STARTED = "never started"
_DATABASE_MARK = "waiting for the database"
_RUNNING_STATES = (ServiceState.UP, ServiceState.DEGRADED)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What an explanation goes by besides the service itself.

    Args:
        host: This host.
        services: All services, as they are seen from here.
        outage: Why this host's database cannot be written; empty when it can.
        outage_since: Since when, in wall time.
        offers: Whether the service has something to offer to schedulers.
        has_scheduler: Whether a scheduler can be reached.
        upgrade: Which version of the topic callers use; None when it is not known.
        disabled_topics: Services that the configuration of this host has disabled.
    """

    host: str = ""
    services: Sequence[ServiceStatus] = ()
    outage: str = ""
    outage_since: float = 0.0
    offers: bool = False
    has_scheduler: bool = True
    upgrade: Upgrade | None = None
    disabled_topics: frozenset[str] = frozenset()


def explain(service: ServiceStatus, around: Surroundings) -> list[StatusCause]:
    """Return why a service is not up and well, what counts most first; empty when it is."""
    causes = [
        *_overrides(service),
        *_absence(service, around),
        *_phase(service),
        *_drivers(service),
        *_evidence(service),
        *_dependencies(service, around),
        *_store(service, around),
        *_version(service, around),
    ]
    return [msgspec.structs.replace(each, text=truncate(each.text, 2 * WHY_LIMIT)) for each in causes]


def _command(service: ServiceStatus, verb: str, more: str = "") -> str:
    at = "" if service.here else f" --host {service.host}"
    return f"`ostler service {verb} {service.topic}{at}{more}`"


def _cause(kind: CauseKind, text: str, remedy: str, *, since: float = 0.0, tried: str = "") -> StatusCause:
    return StatusCause(kind=kind, text=text, since=since, tried=tried, remedy=remedy)


def _overrides(service: ServiceStatus) -> Iterator[StatusCause]:
    """Explain what operators have set, each apart from the others."""
    if (forced := service.forced_down) is not None:
        text = f"it was forced down{format_override(forced)}; what it says itself does not count"
        remedy = (
            f"`ostler service force-down {service.topic} --host {service.host} --undo`, when its host is well again"
        )
        yield _cause("forced down", text, remedy, since=forced.since)
    if (frozen := service.frozen) is not None:
        text = f"it is frozen{format_override(frozen)}; it finishes what it has and takes no new work"
        yield _cause("frozen", text, _command(service, "thaw"), since=frozen.since)
    if not service.enabled:
        by = f" by {service.disabled_by}" if service.disabled_by else ""
        reason = f": {service.disabled_reason}" if service.disabled_reason else ""
        text = f"it is disabled{by}{reason}; nothing is placed on it"
        yield _cause("disabled", text, _command(service, "enable"), since=service.enabled_at)


def _unseen(service: ServiceStatus) -> StatusCause | None:
    """Return why nothing is heard of a service; None when it is heard of, or has ended by its own word."""
    dead = f"`ostler service force-down {service.topic} --host {service.host}`"
    last = f"its last report is {_age_text(service.age)}" if service.beat else ""
    if service.link:
        remedy = f"start the daemon on {service.host}, or look at the network between; if it is dead for good, {dead}"
        return _cause("host gone", service.link, remedy, since=service.last_report, tried=last)
    if not is_up(ServiceState.UP, service.age, service.down_time):
        remedy = f"look at the daemon on {service.host}: `systemctl status ostler` there"
        text = absence_reason(msgspec.structs.replace(service, forced_down=None, state=ServiceState.UP))
        return _cause("host gone", text, remedy, since=service.last_report, tried=last)
    if not service.addressable:
        text = f"{service.host} is unreachable from here: it is not in [network.peers]"
        return _cause("host gone", text, f"add [network.peers.{service.host}] and reload")
    return None


def _absence(service: ServiceStatus, around: Surroundings) -> Iterator[StatusCause]:
    """Explain why nothing is heard of it, or that it is in no configuration any more."""
    if service.state is ServiceState.GONE:
        if service.host == around.host and service.topic in around.disabled_topics:
            remedy = f"set `enabled = true` in [services.{service.topic}] and restart the daemon"
            yield _cause("disabled", "its configuration has `enabled = false`", remedy, since=service.since)
        else:
            yield _cause("gone", f"it is gone: {service.why}", _command(service, "delete"), since=service.since)
    elif (cause := _unseen(service)) is not None:
        yield cause


def _age_text(age: float) -> str:
    return "from an earlier boot" if age >= INFINITE_AGE else f"{format_duration(age)} old"


def _phase(service: ServiceStatus) -> Iterator[StatusCause]:
    """Explain its own state when that is not up."""
    state, why = service.state, service.why
    if service.link or state in _RUNNING_STATES or state is ServiceState.GONE:
        return
    if state is ServiceState.DRAINING:
        stops = "is stopping" in why
        remedy = "wait for its daemon to start again" if stops else f"{_command(service, 'enable')} undoes it"
        yield _cause("draining", f"it takes no new work: {why}", remedy, since=service.since)
    elif state is ServiceState.STOPPED and why == _NEVER_STARTED:
        yield _cause("never started", "it was never started", _command(service, "start"), since=service.since)
    elif state is ServiceState.STOPPED:
        text = f"it is stopped{f': {why}' if why else ''}"
        yield _cause("stopped", text, _command(service, "start"), since=service.since)
    elif needed := _needed_topic(service):
        remedy = f"`ostler service show {needed}` says why it is not up"
        if state is ServiceState.FAILED:
            remedy += f"; then {_command(service, 'start')}"
        yield _cause("dependency", f"it is {state}: {why}", remedy, since=service.since)
    elif state is ServiceState.FAILED:
        remedy = f"fix that, then {_command(service, 'start')}; a reload tries it again too"
        yield _cause("failed", f"it could not be started: {why}", remedy, since=service.since)
    elif _DATABASE_MARK in why:
        remedy = "it goes on when the database can be written"
        yield _cause("store outage", f"it is starting: {why}", remedy, since=service.since)
    else:
        yield _cause("starting", f"it is starting: {why}", "wait; `ostler dump` shows where it is", since=service.since)


def _needed_topic(service: ServiceStatus) -> str:
    """Return the service that it waits for or lacks, empty when it does not."""
    for mark in ("waiting for service ", f"service {service.topic} needs "):
        if mark in service.why:
            return service.why.partition(mark)[2].split(",")[0].split()[0]
    return ""


def _drivers(service: ServiceStatus) -> Iterator[StatusCause]:
    if service.state not in (*_RUNNING_STATES, ServiceState.STARTING):
        return
    for driver in service.drivers:
        if driver.state not in (DriverState.READY, DriverState.STOPPED):
            why = f": {driver.why}" if driver.why else ""
            text = f"driver {driver.name} is {driver.state}{why}"
            yield _cause(
                "driver", text, _driver_remedy(service, driver), since=driver.since, tried=_driver_attempts(driver)
            )


def _driver_attempts(driver: DriverStatus) -> str:
    if driver.state is not DriverState.FAILED or not driver.tries:
        return ""
    following = f", the next one at {format_moment(driver.retry_at)}" if driver.retry_at else ""
    return f"{driver.tries} attempt{'s' if driver.tries > 1 else ''} to initialise it{following}"


def _driver_remedy(service: ServiceStatus, driver: DriverStatus) -> str:
    options = f"[services.{service.topic}.drivers.{driver.name}]"
    if driver.state is DriverState.INITIALISING:
        return "wait; `ostler dump` shows where it is"
    if driver.state is DriverState.STUCK:
        abandon = f"`ostler driver abandon {service.topic}/{driver.name}`"
        return f"it recovers when that returns; `ostler dump` shows where it hangs, {abandon} gives that instance up"
    if driver.retry_at:
        return (
            f"fix that: it is tried again automatically; what is wrong in {options} takes effect with `ostler reload`"
        )
    return f"it is not tried again: install another version of its plugin, or fix {options}, and restart the service"


_EVIDENCE: dict[str, tuple[CauseKind, str]] = {
    "is_working": ("check", "the check of its manager passes again by itself when that is over"),
    "problems": ("check", "fix `problems` of its manager"),
    "threads": ("worker pool", "`ostler dump` shows what they do; it recovers when they return, or raise `workers`"),
    "failing": ("driver failing", "fix the device; the first call that succeeds clears it"),
    "working": ("driver", "fix the device; its check is repeated with each report"),
    "driver_ready": ("driver", "fix that; taking it over is retried with each report"),
    "periodic": (
        "periodic task",
        "`ostler periodic list` shows it, `ostler periodic run` tries it; a run that succeeds clears it",
    ),
    "event": (
        "event handler",
        "`ostler handler list` shows it; the next event that it handles clears it, or a restart of the service",
    ),
    "background": ("background task", "fix that, then restart the service"),
}
"""By the first word of the subject of a problem: the kind of the cause, and what would end it."""


def _evidence(service: ServiceStatus) -> Iterator[StatusCause]:
    """Explain the problems of a running service that its drivers' states do not."""
    if service.state not in _RUNNING_STATES:
        return
    shown = {f"driver {driver.name}" for driver in service.drivers}
    refusing = {
        f"failing {driver.name}": driver for driver in service.drivers if driver.breaker is not BreakerState.CLOSED
    }
    for about, text in service.evidence.items():
        if about not in shown:
            kind, remedy = _EVIDENCE.get(
                about.split()[0] if about else "", ("other", "it is cleared when that is over")
            )
            if (driver := refusing.get(about)) is not None:
                yield _cause(kind, text, _breaker_remedy(service, driver), since=driver.breaker_since)
            else:
                yield _cause(kind, text, remedy, since=service.since)


def _breaker_remedy(service: ServiceStatus, driver: DriverStatus) -> str:
    name = f"{service.topic}/{driver.name}"
    when = f"at {format_moment(driver.breaker_trial_at)}" if driver.breaker_trial_at else "now"
    return (
        f"fix the device: one call is let through as a trial {when}, and if it succeeds, all are; "
        f"`ostler driver reset {name}` lets them through at once"
    )


def _dependencies(service: ServiceStatus, around: Surroundings) -> Iterator[StatusCause]:
    """Explain what a service lacks that was there when it started."""
    if service.state not in _RUNNING_STATES or service.link:
        return
    rows = {row.topic: row for row in around.services if row.host == service.host}
    for topic in service.depends_on:
        row = rows.get(topic)
        if row is None or not row.up or row.state not in _RUNNING_STATES:
            state = "is not on its host" if row is None else f"is {row.state}{f': {row.why}' if row.why else ''}"
            yield _cause("dependency", f"it needs {topic}, which {state}", f"`ostler service show {topic}` says why")
    if around.offers and not around.has_scheduler:
        rows_of_schedulers = [row for row in around.services if row.topic == SCHEDULER_TOPIC]
        if rows_of_schedulers:  # with none anywhere, none is wanted
            where = ", ".join(sorted(row.host for row in rows_of_schedulers))
            text = "no scheduler can be reached: what names no backend is placed on its own host only"
            yield _cause(
                "dependency", text, f"`ostler service show {SCHEDULER_TOPIC} --host HOST` says why; HOST: {where}"
            )


def _store(service: ServiceStatus, around: Surroundings) -> Iterator[StatusCause]:
    if around.outage and service.here and service.state is not ServiceState.GONE:
        remedy = "free space or fix the disk: writing is tried again every 2s; `ostler db check` when it works again"
        text = f"the database of its host cannot be written: {around.outage}"
        yield _cause("store outage", text, remedy, since=around.outage_since)


def _version(service: ServiceStatus, around: Surroundings) -> Iterator[StatusCause]:
    """Explain that callers speak another version than the service does."""
    used = around.upgrade.cap if around.upgrade is not None else ""
    mine, theirs = parse_version(service.rpc_version), parse_version(used)
    if mine is None or theirs is None or (mine[0] == theirs[0] and theirs[1] <= mine[1]):
        return
    pin = around.upgrade.pin if around.upgrade is not None else ""
    text = f"it speaks version {service.rpc_version}, and callers use {used}: it refuses their calls"
    remedy = (
        f"correct `{service.topic}` in `rpc_pins`, or update this service"
        if pin
        else f"update it; `ostler service versions {service.topic}` shows who speaks which version"
    )
    yield _cause("version", text, remedy)
