"""Everything at one glance: `ostler status`, read by hand like `run`, because typer would take half of its time."""

from __future__ import annotations

from collections.abc import Sequence

from ostler.availability import absence_reason
from ostler.cli import kit
from ostler.cli.session import Session
from ostler.config.units import format_size
from ostler.errors import FAILED, WELL
from ostler.types import CONTROL_TOPIC, DaemonStatus, DriverStatus, PluginState, ServiceState, ServiceStatus

_SHOWN_SHARE = 16
"""What callers hold is shown when it is more than this part of what they may."""


def read(words: Sequence[str]) -> bool | None:
    """Return whether `--check` was typed; None when there is anything else, which typer then explains.

    Args:
        words: What was typed after `status`.
    """
    return bool(words) if set(words) <= {"--check"} else None


def start(session: Session, wanted: bool) -> int:  # noqa: ARG001 - the kit knows the session; `run` takes it as well
    """Ask the daemon and show its status; returns the exit code.

    Args:
        session: Where the daemon lives.
        wanted: Whether something that is not well is a failure.
    """
    with kit.client() as client:
        found = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    if kit.json_wanted():
        kit.emit(found)
    else:
        show(found)
    return FAILED if wanted and found.not_well else WELL


def show(found: DaemonStatus) -> None:
    """Show the status of a daemon to people."""
    kit.heading(headline(found))
    also = f", for other hosts on {kit.printable(found.network)}" if found.network else ""
    kit.say(f"  listens on {kit.printable(found.rpc)}{also}")
    if found.log:
        kit.say(f"  logs to {kit.printable(found.log)}")
    if found.callers_memory > found.max_memory // _SHOWN_SHARE:
        kit.say(f"  callers hold {format_size(found.callers_memory)} of {format_size(found.max_memory)}")
    if found.last_reload is not None:
        kit.say(
            f"  last reload {kit.human_elapsed(found.last_reload.at)} ago: {kit.printable(found.last_reload.summary)}"
        )
    kit.say()
    kit.show_table(found.services, SERVICES, empty="No services are configured.")
    drivers = [(service, driver) for service in found.services if service.here for driver in service.drivers]
    if drivers:
        kit.say()
        kit.show_table(drivers, DRIVERS)
    kit.say()
    if found.not_well:
        kit.heading("Not well")
        for line in found.not_well:
            kit.say(f"  {kit.printable(line)}")
    elif found.services:
        kit.say("All is well.")
    else:
        kit.say(nothing_to_do(found))


def nothing_to_do(found: DaemonStatus) -> str:
    """Return what a daemon without a service needs."""
    loaded = [plugin.name for plugin in found.plugins if plugin.state is PluginState.LOADED]
    if not loaded:
        return (
            "Nothing runs here: no plugin is installed. Install one into the environment of the daemon (those that\n"
            "come with Ostler are in `plugins` of its source), restart the daemon, and configure a service."
        )
    return kit.printable(
        f"Nothing runs here: no service is configured. Loaded plugins: {', '.join(loaded)}. "
        "Add a table [services.NAME] with its `manager`, and restart the daemon."
    )


def headline(found: DaemonStatus) -> str:
    """Return the daemon in one line."""
    why = f" ({found.why})" if found.why else ""
    return kit.printable(
        f"ostler {found.version} on {found.host}: {found.state} for {kit.human_elapsed(found.since)}{why}, "
        f"pid {found.pid}, {format_size(found.memory)}, {found.threads} threads"
    )


def enabled_text(service: ServiceStatus) -> str:
    """Return whether a service is enabled, or who disabled it and why."""
    if service.enabled:
        return "enabled"
    by = f" by {service.disabled_by}" if service.disabled_by else ""
    return f"disabled{by}: {service.disabled_reason}" if service.disabled_reason else f"disabled{by}"


def up_text(service: ServiceStatus) -> str:
    """Return the observer's word on a service."""
    if service.state is ServiceState.GONE:
        return "-"
    return "up" if service.up else "down"


def why_text(service: ServiceStatus) -> str:
    """Return what a service says is not well with it, or why it is not there for others."""
    ended = service.state in (ServiceState.STOPPED, ServiceState.FAILED) and not service.link
    return service.why if ended else absence_reason(service) or service.why


SERVICES = [
    kit.Column("topic"),
    kit.Column("host"),
    kit.Column("state"),
    kit.Column("seen", up_text),
    kit.Column("enabled", enabled_text),
    kit.Column("for", lambda service: kit.human_elapsed(service.since)),
    kit.Column("in flight", "in_flight", right=True),
    kit.Column("why", why_text),
]


def _retry(pair: tuple[ServiceStatus, DriverStatus]) -> str:
    return kit.human_age(pair[1].retry_at)


DRIVERS = [
    kit.Column("backend", lambda pair: f"{pair[0].topic}/{pair[1].name}"),
    kit.Column("driver", lambda pair: pair[1].driver),
    kit.Column("state", lambda pair: pair[1].state),
    kit.Column("for", lambda pair: kit.human_elapsed(pair[1].since)),
    kit.Column("retry", _retry),
    kit.Column("why", lambda pair: pair[1].why or pair[1].pending),
]
