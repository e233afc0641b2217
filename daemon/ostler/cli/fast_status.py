"""`ostler status`: a summary. It bypasses typer as `run` does, because typer would take half of its time."""

from __future__ import annotations

from collections.abc import Sequence

from ostler.availability import absence_reason, format_override
from ostler.cli import kit
from ostler.cli.invocation import Invocation
from ostler.cli.view import run_view
from ostler.config.units import format_size
from ostler.errors import EXIT_FAILURE, EXIT_OK
from ostler.reload_types import OptionChange
from ostler.types import (
    CONTROL_TOPIC,
    BreakerState,
    DaemonStatus,
    DriverState,
    DriverStatus,
    PluginState,
    ServiceState,
    ServiceStatus,
)

_MEMORY_DISPLAY_DIVISOR = 16
"""The memory that callers hold is shown when it exceeds this fraction of its limit."""


def parse_check_flag(words: Sequence[str]) -> bool | None:
    """Return whether `--check` was given; None for any other argument, which typer then handles.

    Args:
        words: The arguments after `status`.
    """
    return bool(words) if set(words) <= {"--check"} else None


def run_status(session: Invocation, check: bool) -> int:  # noqa: ARG001 - the kit has the session; the signature is that of `run`
    """Request the status of the daemon, show it and return the exit code.

    Args:
        session: Which daemon.
        check: Whether a problem is a failure.
    """
    return run_view(lambda: _show(check))


def _show(check: bool) -> int:
    with kit.client() as client:
        found = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    if kit.json_wanted():
        kit.emit(found)
    elif kit.names_wanted():
        kit.show_table(found.services, SERVICE_COLUMNS)
    else:
        show_status(found)
    return EXIT_FAILURE if check and found.not_well else EXIT_OK


def show_status(status: DaemonStatus) -> None:
    """Show the status of a daemon to people."""
    kit.heading(headline(status))
    _show_addresses(status)
    if status.log:
        kit.say(f"  logs to {kit.printable(status.log)}")
    if status.callers_memory > status.max_memory // _MEMORY_DISPLAY_DIVISOR:
        kit.say(f"  callers hold {format_size(status.callers_memory)} of {format_size(status.max_memory)}")
    if status.last_reload is not None:
        kit.say(
            f"  last reload {kit.human_elapsed(status.last_reload.at)} ago: {kit.printable(status.last_reload.summary)}"
        )
    for change in status.needs_restart:
        old, new = change_texts(change)
        kit.say(f"  restart needed for {kit.printable(f'{change.path}: {old} -> {new}')}")
    kit.say()
    kit.show_table(status.services, SERVICE_COLUMNS, empty="No services are configured.")
    drivers = [(service, driver) for service in status.services if service.here for driver in service.drivers]
    if drivers:
        kit.say()
        kit.show_table(drivers, DRIVER_COLUMNS)
    kit.say()
    if status.not_well:
        kit.heading("Problems")
        for line in status.not_well:
            kit.say(f"  {kit.printable(line)}")
    elif status.services:
        kit.say("No problems.")
    else:
        kit.say(no_services_hint(status))


def _show_addresses(status: DaemonStatus) -> None:
    also = f", for other hosts on {kit.printable(status.network)}" if status.network else ""
    kit.say(f"  listens on {kit.printable(status.rpc)}{also}")
    for service in status.services:
        if service.here and service.addresses:
            kit.say(kit.printable(f"  {service.topic} listens on {', '.join(service.addresses)}"))


def change_texts(change: OptionChange) -> tuple[str, str]:
    """Return the old and the new value as they are written in the file."""
    return (
        change.old_text or kit.to_json(change.old, indent=0),
        change.new_text or kit.to_json(change.new, indent=0),
    )


def no_services_hint(status: DaemonStatus) -> str:
    """Return what to do about a daemon without services."""
    loaded = [plugin.name for plugin in status.plugins if plugin.state is PluginState.LOADED]
    if not loaded:
        return (
            "No services: no plugin is installed. Install one into the environment of the daemon (those that come\n"
            "with Ostler are in `plugins` of its source), restart the daemon, and configure a service."
        )
    return kit.printable(
        f"No services are configured. Loaded plugins: {', '.join(loaded)}. "
        "Add a table [services.NAME] with its `manager`, and restart the daemon."
    )


def headline(status: DaemonStatus) -> str:
    """Return a summary of the daemon in one line."""
    why = f" ({status.why})" if status.why else ""
    why += ", in safe mode" if status.safe else ""
    return kit.printable(
        f"ostler {status.version} on {status.host}: {status.state} for {kit.human_elapsed(status.since)}{why}, "
        f"pid {status.pid}, {format_size(status.memory)}, {status.threads} threads"
    )


def enabled_text(service: ServiceStatus) -> str:
    """Return whether a service is enabled, or who disabled it and why."""
    if service.enabled:
        return "enabled"
    by = f" by {service.disabled_by}" if service.disabled_by else ""
    return f"disabled{by}: {service.disabled_reason}" if service.disabled_reason else f"disabled{by}"


def override_text(service: ServiceStatus) -> str:
    """Return what operators have set on a service, with who and why: `frozen by alice: moving; disabled by bob`."""
    found = [] if service.enabled else [enabled_text(service)]
    if service.frozen is not None:
        found.insert(0, f"frozen{format_override(service.frozen)}")
    if service.forced_down is not None:
        found.insert(0, f"forced down{format_override(service.forced_down)}")
    return "; ".join(found) or "enabled"


def up_text(service: ServiceStatus) -> str:
    """Return whether a service is up, as its observer sees it."""
    if service.state is ServiceState.GONE:
        return "-"
    return "up" if service.up else "down"


def reason_text(service: ServiceStatus) -> str:
    """Return the problem that a service reports, or why it is unavailable."""
    ended = service.state in (ServiceState.STOPPED, ServiceState.FAILED) and not service.link
    return service.why if ended else absence_reason(service) or service.why


SERVICE_COLUMNS = [
    kit.Column("topic", priority=0, min_width=10),
    kit.Column("host", priority=2),
    kit.Column("state", priority=0, min_width=12),
    kit.Column("seen", up_text, priority=3),
    kit.Column("enabled", override_text, priority=1),
    kit.Column("for", lambda service: kit.human_elapsed(service.since), priority=2, min_width=11),
    kit.Column("in flight", "in_flight", right=True, priority=4),
    kit.Column("why", reason_text, priority=0),
]


def _retry_text(pair: tuple[ServiceStatus, DriverStatus]) -> str:
    return kit.human_age(pair[1].retry_at or pair[1].breaker_trial_at)


def _refusal_text(driver: DriverStatus) -> str:
    return driver.last_error if driver.breaker is not BreakerState.CLOSED else ""


def driver_state_text(driver: DriverStatus) -> str:
    """Return the state of a driver, or that its calls are refused although it is ready."""
    if driver.state is DriverState.READY and driver.breaker is not BreakerState.CLOSED:
        return f"breaker {driver.breaker}"
    return driver.state


DRIVER_COLUMNS = [
    kit.Column("backend", lambda pair: f"{pair[0].topic}/{pair[1].name}", priority=0, min_width=16),
    kit.Column("driver", lambda pair: pair[1].driver, priority=3),
    kit.Column("state", lambda pair: driver_state_text(pair[1]), priority=0, min_width=12),
    kit.Column("for", lambda pair: kit.human_elapsed(pair[1].breaker_since or pair[1].since), priority=2, min_width=11),
    kit.Column("retry", _retry_text, priority=1, min_width=11),
    kit.Column("why", lambda pair: pair[1].why or pair[1].pending or _refusal_text(pair[1]), priority=0),
]
