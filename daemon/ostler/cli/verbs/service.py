"""`ostler service`: services, and the operator's word on them."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import typer

from ostler.availability import unavailable_reason
from ostler.cli import kit
from ostler.cli.glance import SERVICES, enabled_text, up_text
from ostler.errors import FAILED, InvalidInput
from ostler.types import CONTROL_TOPIC, MemberVersion, ServiceState, ServiceStatus, Upgrade

app = kit.app(
    help="List and show services; enable, disable, drain, resume, start, stop, restart and forget them; see what holds "
    "an upgrade back."
)
T = TypeVar("T")

Topic = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
Host = Annotated[str, typer.Option(help="The service on this host; by default the daemon's own", show_default=False)]
Wait = Annotated[float, typer.Option(help="Seconds to wait; by default the service's drain_timeout")]
_TAKES_WORK = (ServiceState.UP, ServiceState.DEGRADED, ServiceState.STARTING)
_SOON, _LONG = 60.0, 600.0
"""Seconds that a service may take for a stop, beside those it is given for its work, and for a start."""

DETAILS: list[str | kit.Column] = [
    "topic", "host", "manager", "state", kit.Column("seen", up_text), kit.Column("enabled", enabled_text), "why",
    kit.Column("available", lambda row: f"no: {reason}" if (reason := unavailable_reason(row)) else "yes"),
    kit.Column("since", lambda row: kit.human_time(row.since)), "required", "rpc_version", "beat",
    kit.Column("last report", lambda row: kit.human_time(row.last_report)), "workers", "in_flight", "queued",
]  # fmt: skip


VERSIONS: list[str | kit.Column] = [
    "topic",
    kit.Column("may be used", lambda row: row.cap or "-"),
    kit.Column("newest", lambda row: row.newest or "-"),
    kit.Column("pin", lambda row: row.pin or "auto"),
    kit.Column("upgrading", lambda row: "yes" if row.upgrading else "no"),
    kit.Column("held back by", lambda row: [_holder(each) for each in row.pinned_by]),
]


@app.command("list")
def list_services() -> None:
    """List the services of all hosts."""
    with kit.client() as client:
        rows = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
    kit.show_table(rows, SERVICES, empty="There are no services.")


@app.command()
def show(topic: Topic, host: Host = "") -> None:
    """Show one service with its drivers."""
    with kit.client() as client:
        found = client.on(type=ServiceStatus).call(CONTROL_TOPIC, "service_show", topic=topic, **_on(host))
    _show(found)


@app.command()
def versions(
    topic: Annotated[str, typer.Argument(help="One topic; all without it", show_default=False)] = "",
) -> None:
    """Show what versions callers may use, and who holds them back.

    While services of several versions are there, callers use no more than the oldest understands, or what `rpc_pins`
    says. One that is down, stopped or disabled counts for `rpc_grace` and no longer.
    """
    arguments: dict[str, Any] = {"topic": topic} if topic else {}
    with kit.client() as client:
        rows = client.on(type=list[Upgrade]).call(CONTROL_TOPIC, "service_versions", **arguments)
    kit.show_table(rows, VERSIONS, empty="There are no services.")


@app.command()
def enable(topic: Topic, host: Host = "") -> None:
    """Let schedulers choose a service again.

    Of an administrator it undoes a drain as well.
    """
    _changed(_ask("service_enable", ServiceStatus, topic, host))


@app.command()
def disable(
    topic: Topic,
    reason: Annotated[str, typer.Option(help="Why; shown wherever the service is", show_default=False)],
    host: Host = "",
) -> None:
    """Keep schedulers from choosing a service.

    It goes on with what it has, and answers.
    """
    _changed(_ask("service_disable", ServiceStatus, topic, host, reason=reason))


@app.command()
def forget(
    topic: Annotated[
        str, typer.Argument(help="The service's topic; with --gone all without it", show_default=False)
    ] = "",
    host: Host = "",
    gone: Annotated[bool, typer.Option("--gone", help="All that are gone, of that host if one is named")] = False,
) -> None:
    """Remove the record of a service that is gone for good.

    Of a host that is no more, or of a service that is no longer in the configuration.
    """
    if not topic and not gone:
        raise InvalidInput("which service?", hint="name its topic, or say --gone for all that are gone")
    with kit.client() as client:
        found = [(topic, host)]
        if gone:
            rows = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
            found = [(row.topic, row.host) for row in rows if _is_gone(row, topic, host)]
        for each, where in found:
            client.call(CONTROL_TOPIC, "service_forget", topic=each, **_on(where))
    if kit.json_wanted():
        removed = [{"topic": each, "host": where} for each, where in found]
        kit.emit(removed if gone else removed[0])
        return
    for each, where in found:
        kit.say(kit.printable(f"the record of {each}{f' on {where}' if where else ''} is removed"))
    if not found:
        kit.say("Nothing is gone.")


@app.command()
def drain(topic: Topic, wait: Wait = 0.0, host: Host = "") -> None:
    """Take no new work, wait for what is in flight.

    `ostler service resume` undoes it.
    """
    left = _ask("service_drain", list[str], topic, host, wait=wait, limit=wait + _SOON if wait else _LONG)
    _ended(topic, left, "still_running", "takes no new work", "still in flight", "nothing is left in flight")


@app.command()
def resume(topic: Topic, host: Host = "") -> None:
    """Take new work again, after a drain."""
    _is_now(_ask("service_resume", ServiceStatus, topic, host))


@app.command()
def stop(topic: Topic, wait: Wait = 0.0, host: Host = "") -> None:
    """Drain a service and take it down.

    The others go on. It is started again by `ostler service start`, and with the daemon.
    """
    left = _ask("service_stop", list[str], topic, host, wait=wait, limit=wait + _SOON if wait else _LONG)
    _ended(topic, left, "still_running", "is stopped", "has not come back", "nothing is left of it")


@app.command()
def start(topic: Topic, host: Host = "") -> None:
    """Start a service that has stopped or failed.

    With the configuration that is in force: what of it was waiting for a restart is in force then.
    """
    _is_now(_ask("service_start", ServiceStatus, topic, host, limit=_LONG))


@app.command()
def restart(topic: Topic, wait: Wait = 0.0, host: Host = "") -> None:
    """Stop a service and start it again.

    The others go on. What of the configuration was waiting for a restart is in force then.
    """
    _is_now(_ask("service_restart", ServiceStatus, topic, host, wait=wait, limit=wait + _LONG))


def _holder(member: MemberVersion) -> str:
    return f"{member.host} {member.version} ({member.why})" if member.host else f"{member.version} ({member.why})"


def _ask(method: str, kind: type[T], topic: str, host: str, limit: float | None = None, **more: Any) -> T:
    """Have the daemon do something with a service; it passes on what is for another host."""
    arguments = {name: value for name, value in more.items() if value}
    with kit.client(timeout=limit) if limit is not None else kit.client() as client:
        found: T = client.on(type=kind).call(CONTROL_TOPIC, method, topic=topic, **arguments, **_on(host))
    return found


def _ended(topic: str, left: list[str], key: str, done: str, some: str, none: str) -> None:
    """Show what is left of a service that was to end something, and fail when there is something."""
    name = kit.printable(topic)
    if kit.json_wanted():
        kit.emit({"topic": topic, key: left})
    elif left:
        kit.say(f"{name} {done}; {some}:")
        for line in left:
            kit.say(f"  {kit.printable(line)}")
    else:
        kit.say(f"{name} {done}, and {none}.")
    if left:
        raise typer.Exit(FAILED)


def _is_now(found: ServiceStatus) -> None:
    if kit.json_wanted():
        kit.emit(found)
        return
    word = "" if found.enabled else f", and {enabled_text(found)}"
    kit.say(kit.printable(f"{found.topic} on {found.host} is {found.state}{word}"))


def _is_gone(row: ServiceStatus, topic: str, host: str) -> bool:
    return row.state is ServiceState.GONE and row.topic == (topic or row.topic) and row.host == (host or row.host)


def _on(host: str) -> dict[str, Any]:
    # An argument of the method, not the option `host` of the call: the daemon here keeps the records of all hosts.
    return {"on_host": host} if host else {}


def _show(found: ServiceStatus) -> None:
    kit.show_fields(found, names=DETAILS)
    if found.drivers and not kit.json_wanted():
        kit.say()
        age = kit.Column("for", lambda row: kit.human_elapsed(row.since))
        retry = kit.Column("retry", lambda row: kit.human_age(row.retry_at))
        calls = kit.Column("calls", right=True)
        kit.show_table(found.drivers, ["name", "driver", "state", age, retry, calls, "why"])


def _changed(found: ServiceStatus) -> None:
    if kit.json_wanted():
        kit.emit(found)
    else:
        kit.say(kit.printable(f"{found.topic} on {found.host} is {enabled_text(found)}"))
        if found.enabled and found.state not in _TAKES_WORK:
            way = "resume" if found.state is ServiceState.DRAINING else "start"
            text = f"  it takes no calls, for it is {found.state}: `ostler service {way} {found.topic}`"
            kit.say(kit.printable(text))
