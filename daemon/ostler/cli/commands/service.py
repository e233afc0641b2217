"""`ostler service`: services, and what an operator does with them."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import typer

from ostler.availability import unavailable_reason
from ostler.cli import kit
from ostler.cli.fast_status import SERVICE_COLUMNS, enabled_text, override_text, up_text
from ostler.cli.results import RemainingWork, ServiceRecord
from ostler.config.units import format_seconds
from ostler.errors import EXIT_FAILURE, InvalidInput
from ostler.types import (
    CONTROL_TOPIC,
    ForcedDownResult,
    MemberVersion,
    ServiceSign,
    ServiceState,
    ServiceStatus,
    StatusCause,
    Upgrade,
)

app = kit.app(
    help="List and show services and their versions; enable, disable, freeze, thaw, drain, resume, start, stop, "
    "restart, force down, delete them."
)
T = TypeVar("T")

TopicArgument = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
HostOption = Annotated[str, typer.Option(help="The service on this host; by default the local one", show_default=False)]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait; by default the service's drain_timeout")]
_ACCEPTING_STATES = (ServiceState.UP, ServiceState.DEGRADED, ServiceState.STARTING)
_STOP_MARGIN, _LONG_TIMEOUT = 60.0, 600.0
"""Seconds that a service may take for a stop, in addition to those for its work, and for a start."""

DETAIL_FIELDS: list[str | kit.Column] = [
    "topic", "host", "manager", "state", kit.Column("seen", up_text), kit.Column("enabled", override_text), "why",
    kit.Column("available", lambda row: f"no: {reason}" if (reason := unavailable_reason(row)) else "yes"),
    kit.Column("since", lambda row: kit.human_time(row.since)), "required", "rpc_version", "beat",
    kit.Column("last report", lambda row: kit.human_time(row.last_report)), "workers", "in_flight", "queued",
]  # fmt: skip


VERSION_COLUMNS: list[str | kit.Column] = [
    kit.Column("topic", priority=0),
    kit.Column("usable", lambda row: row.cap or "-", priority=0),
    kit.Column("newest", lambda row: row.newest or "-", priority=1),
    kit.Column("pin", lambda row: row.pin or "auto", priority=2),
    kit.Column("upgrading", lambda row: "yes" if row.upgrading else "no", priority=3),
    kit.Column("limited by", lambda row: [_format_member(each) for each in row.pinned_by], priority=0),
]
_DRIVER_COLUMNS = [
    kit.Column("name", priority=0, min_width=12),
    kit.Column("driver", priority=3),
    kit.Column("state", priority=0, min_width=12),
    kit.Column("for", lambda row: kit.human_elapsed(row.since), priority=2, min_width=11),
    kit.Column("retry", lambda row: kit.human_age(row.retry_at), priority=1, min_width=11),
    kit.Column("calls", right=True, priority=4),
    kit.Column("errors", right=True, priority=2),
    kit.Column("failures", right=True, priority=3),
    kit.Column("why", priority=0),
]


def _progress_text(sign: ServiceSign) -> str:
    return format_seconds(sign.age, units=2) if sign.age >= 0 else "-"


_SIGN_COLUMNS = [
    kit.Column("sign of work", "subject", priority=0, min_width=16),
    kit.Column("last progress", _progress_text, right=True, priority=0),
    kit.Column("seen", "text", priority=1),
]


@app.command("list")
@kit.view
@kit.shows(ServiceStatus, many=True)
def list_services() -> None:
    """List the services of all hosts."""
    with kit.client() as client:
        rows = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
    kit.show_table(rows, SERVICE_COLUMNS, empty="There are no services.")


@app.command()
@kit.view
@kit.shows(ServiceStatus)
def show(topic: TopicArgument, host: HostOption = "") -> None:
    """Show one service with its drivers, and why it is not up."""
    with kit.client() as client:
        found = client.on(type=ServiceStatus).call(CONTROL_TOPIC, "service_show", topic=topic, **_host_argument(host))
    _show_service(found)


@app.command()
@kit.view
@kit.shows(Upgrade, many=True)
def versions(
    topic: Annotated[str, typer.Argument(help="A topic; by default all", show_default=False)] = "",
) -> None:
    """Show the versions that callers may use, and what limits them.

    While services of several versions are running, callers use no more than the oldest supports, or the pin in
    `rpc_pins`. A service that is down, stopped or disabled counts for `rpc_pin_grace` only.
    """
    arguments: dict[str, Any] = {"topic": topic} if topic else {}
    with kit.client() as client:
        rows = client.on(type=list[Upgrade]).call(CONTROL_TOPIC, "service_versions", **arguments)
    kit.show_table(rows, VERSION_COLUMNS, empty="There are no services.")


@app.command()
@kit.shows(ServiceStatus)
def enable(topic: TopicArgument, host: HostOption = "") -> None:
    """Allow schedulers to choose a service again.

    For an administrator it also undoes a drain.
    """
    _show_enabled(_call_control("service_enable", ServiceStatus, topic, host))


@app.command()
@kit.shows(ServiceStatus)
def disable(
    topic: TopicArgument,
    reason: Annotated[str, typer.Option(help="The reason, shown together with the service", show_default=False)],
    host: HostOption = "",
) -> None:
    """Prevent schedulers from choosing a service.

    The service keeps its resources and answers calls.
    """
    _show_enabled(_call_control("service_disable", ServiceStatus, topic, host, reason=reason))


@app.command()
@kit.shows(ServiceStatus)
def freeze(
    topic: TopicArgument,
    reason: Annotated[str, typer.Option(help="The reason, shown together with the service", show_default=False)],
    host: HostOption = "",
) -> None:
    """Have a service take no new work and finish what it has.

    It goes on answering what changes nothing, and its periodic tasks run; queued operations wait. A restart does not
    end it: `ostler service thaw` does.
    """
    _show_state(_call_control("service_freeze", ServiceStatus, topic, host, reason=reason))


@app.command()
@kit.shows(ServiceStatus)
def thaw(topic: TopicArgument, host: HostOption = "") -> None:
    """Have a frozen service take work again."""
    _show_state(_call_control("service_thaw", ServiceStatus, topic, host))


@app.command("force-down")
@kit.shows(ForcedDownResult)
def force_down(
    topic: TopicArgument,
    host: Annotated[str, typer.Option(help="The host that is dead", show_default=False)],
    reason: Annotated[str, typer.Option(help="The reason, shown together with the service", show_default=False)] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Go by what the service says itself again")] = False,
) -> None:
    """Take a service of a dead host as down, whatever it says.

    For a host that is certainly dead, or cut off: nothing is placed there until `--undo`. All hosts that can be reached
    learn of it.
    """
    if not undo and not reason.strip():
        raise InvalidInput("a service cannot be forced down without a reason", hint="give one with `--reason`")
    found = _call_control("service_force_down", ForcedDownResult, topic, host, reason=reason, undo=undo)
    if kit.json_wanted():
        kit.emit(found)
        return
    row = found.service
    what = "counts by its own reports again" if undo else "is taken as down until `ostler service force-down --undo`"
    also = f"; also told: {', '.join(found.told)}" if found.told else ""
    kit.say(kit.printable(f"{row.topic} on {row.host} {what}{also}"))
    for line in found.missed:
        kit.say(f"  not told: {kit.printable(line)}")
    if found.missed:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
@kit.shows(ServiceRecord, list[ServiceRecord])
def delete(
    topic: Annotated[
        str, typer.Argument(help="The service's topic; with --gone, by default all", show_default=False)
    ] = "",
    host: HostOption = "",
    gone: Annotated[
        bool, typer.Option("--gone", help="All services that are gone, of the host if one is given")
    ] = False,
    yes: kit.YesOption = False,
) -> None:
    """Remove the record of a service that no longer exists.

    Its host no longer exists, or it is no longer in the configuration. Asks first on a terminal.
    """
    if not topic and not gone:
        raise InvalidInput("no service given", hint="give its topic, or --gone for all that are gone")
    with kit.client() as client:
        found = [(topic, host)]
        if gone:
            rows = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
            found = [(row.topic, row.host) for row in rows if _is_gone(row, topic, host)]
        if found:
            subjects = [f"{each} on {where}" if where else each for each, where in found]
            kit.confirm(f"remove the record of {kit.count_of(subjects, 'service')}", yes=yes)
        for each, where in found:
            client.call(CONTROL_TOPIC, "service_delete", topic=each, **_host_argument(where))
    if kit.json_wanted():
        removed = [ServiceRecord(topic=each, host=where) for each, where in found]
        kit.emit(removed if gone else removed[0])
        return
    for each, where in found:
        kit.say(kit.printable(f"the record of {each}{f' on {where}' if where else ''} was removed"))
    if not found:
        kit.say("No services are gone.")


@app.command()
@kit.shows(RemainingWork)
def drain(topic: TopicArgument, wait: WaitOption = 0.0, host: HostOption = "") -> None:
    """Refuse new work, and wait for requests in flight.

    `ostler service resume` undoes it.
    """
    left = _call_control(
        "service_drain", list[str], topic, host, wait=wait, limit=wait + _STOP_MARGIN if wait else _LONG_TIMEOUT
    )
    _show_remaining(topic, left, "refuses new work", "still in flight", "nothing is in flight")


@app.command()
@kit.shows(ServiceStatus)
def resume(topic: TopicArgument, host: HostOption = "") -> None:
    """Accept new work again after a drain."""
    _show_state(_call_control("service_resume", ServiceStatus, topic, host))


@app.command()
@kit.shows(RemainingWork)
def stop(topic: TopicArgument, wait: WaitOption = 0.0, host: HostOption = "") -> None:
    """Drain and stop a service.

    Other services keep running. `ostler service start` or a restart of the daemon starts it again.
    """
    left = _call_control(
        "service_stop", list[str], topic, host, wait=wait, limit=wait + _STOP_MARGIN if wait else _LONG_TIMEOUT
    )
    _show_remaining(topic, left, "is stopped", "still running", "nothing is left running")


@app.command()
@kit.shows(ServiceStatus)
def start(topic: TopicArgument, host: HostOption = "") -> None:
    """Start a service that has stopped or failed.

    It uses the loaded configuration, including changes that were waiting for a restart.
    """
    _show_state(_call_control("service_start", ServiceStatus, topic, host, limit=_LONG_TIMEOUT))


@app.command()
@kit.shows(ServiceStatus)
def restart(topic: TopicArgument, wait: WaitOption = 0.0, host: HostOption = "") -> None:
    """Restart a service.

    Other services keep running. Changes of the configuration that were waiting for a restart take effect.
    """
    _show_state(_call_control("service_restart", ServiceStatus, topic, host, wait=wait, limit=wait + _LONG_TIMEOUT))


def _format_member(member: MemberVersion) -> str:
    return f"{member.host} {member.version} ({member.why})" if member.host else f"{member.version} ({member.why})"


def _call_control(method: str, kind: type[T], topic: str, host: str, limit: float | None = None, **more: Any) -> T:
    """Request an action on a service from the daemon, which forwards it to another host if needed."""
    arguments = {name: value for name, value in more.items() if value}
    with kit.client(timeout=limit) if limit is not None else kit.client() as client:
        found: T = client.on(type=kind).call(CONTROL_TOPIC, method, topic=topic, **arguments, **_host_argument(host))
    return found


def _show_remaining(topic: str, left: list[str], done: str, some: str, none: str) -> None:
    """Show what a service has left running, and fail if there is anything."""
    name = kit.printable(topic)
    if kit.json_wanted():
        kit.emit(RemainingWork(topic=topic, still_running=left))
    elif left:
        kit.say(f"{name} {done}; {some}:")
        for line in left:
            kit.say(f"  {kit.printable(line)}")
    else:
        kit.say(f"{name} {done}, and {none}.")
    if left:
        raise typer.Exit(EXIT_FAILURE)


def _show_state(found: ServiceStatus) -> None:
    if kit.json_wanted():
        kit.emit(found)
        return
    text = override_text(found)
    word = "" if text == "enabled" else f", and {text}"
    kit.confirm_done(f"{found.topic} on {found.host} is {found.state}{word}")


def _is_gone(row: ServiceStatus, topic: str, host: str) -> bool:
    return row.state is ServiceState.GONE and row.topic == (topic or row.topic) and row.host == (host or row.host)


def _host_argument(host: str) -> dict[str, Any]:
    # An argument of the method, not the option `host` of the call: the local daemon has the records of all hosts.
    return {"on_host": host} if host else {}


def _show_service(found: ServiceStatus) -> None:
    kit.show_fields(found, names=DETAIL_FIELDS)
    if kit.names_wanted():
        return
    if found.drivers and not kit.json_wanted():
        kit.say()
        kit.show_table(found.drivers, _DRIVER_COLUMNS)
    if found.signs and not kit.json_wanted():
        kit.say()
        kit.show_table(found.signs, _SIGN_COLUMNS)
    if found.causes and not kit.json_wanted():
        kit.say()
        kit.heading("Why it is not up and well")
        for cause in found.causes:
            _show_cause(cause)


def _show_cause(cause: StatusCause) -> None:
    """Show a cause: its sentence, since when and what was tried, and what would bring the service back."""
    kit.say(f"  {kit.printable(cause.text)}")
    facts = [f"since {kit.human_time(cause.since)} ({kit.human_elapsed(cause.since)})"] if cause.since else []
    facts += [kit.printable(cause.tried)] if cause.tried else []
    if facts:
        kit.say(f"    {'; '.join(facts)}")
    if cause.remedy:
        kit.say(f"    -> {kit.printable(cause.remedy)}")


def _show_enabled(found: ServiceStatus) -> None:
    if kit.json_wanted():
        kit.emit(found)
    else:
        kit.confirm_done(f"{found.topic} on {found.host} is {enabled_text(found)}")
        if found.enabled and found.state not in _ACCEPTING_STATES:
            way = "resume" if found.state is ServiceState.DRAINING else "start"
            text = f"  it refuses calls because it is {found.state}: `ostler service {way} {found.topic}`"
            kit.say(kit.printable(text))
