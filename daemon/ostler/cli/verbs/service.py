"""`ostler service`: services, and the operator's word on them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit
from ostler.cli.glance import SERVICES, enabled_text, up_text
from ostler.errors import FAILED
from ostler.types import CONTROL_TOPIC, MemberVersion, ServiceStatus, Upgrade

app = kit.app(help="List, show, enable, disable, drain and forget services; see what holds an upgrade back.")

Topic = Annotated[str, typer.Argument(help="The service's topic", show_default=False)]
Host = Annotated[str, typer.Option(help="The service on this host; by default the daemon's own", show_default=False)]

DETAILS: list[str | kit.Column] = [
    "topic", "host", "manager", "state", kit.Column("seen", up_text), kit.Column("enabled", enabled_text), "why",
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
        rows = client.call(CONTROL_TOPIC, "service_list", type=list[ServiceStatus])
    kit.show_table(rows, SERVICES, empty="There are no services.")


@app.command()
def show(topic: Topic, host: Host = "") -> None:
    """Show one service with its drivers."""
    with kit.client() as client:
        found = client.call(CONTROL_TOPIC, "service_show", type=ServiceStatus, topic=topic, **_on(host))
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
        rows = client.call(CONTROL_TOPIC, "service_versions", type=list[Upgrade], **arguments)
    kit.show_table(rows, VERSIONS, empty="There are no services.")


@app.command()
def enable(topic: Topic, host: Host = "") -> None:
    """Let schedulers choose a service again."""
    with kit.client() as client:
        found = client.call(CONTROL_TOPIC, "service_enable", type=ServiceStatus, topic=topic, **_on(host))
    _changed(found)


@app.command()
def disable(
    topic: Topic,
    reason: Annotated[str, typer.Option(help="Why; shown wherever the service is", show_default=False)],
    host: Host = "",
) -> None:
    """Keep schedulers from choosing a service.

    It goes on with what it has, and answers.
    """
    arguments: dict[str, Any] = {"topic": topic, "reason": reason, **_on(host)}
    with kit.client() as client:
        found = client.call(CONTROL_TOPIC, "service_disable", type=ServiceStatus, **arguments)
    _changed(found)


@app.command()
def forget(topic: Topic, host: Host = "") -> None:
    """Remove the record of a service that is gone for good.

    Of a host that is no more, or of a service that is no longer in the configuration.
    """
    with kit.client() as client:
        client.call(CONTROL_TOPIC, "service_forget", topic=topic, **_on(host))
    if kit.json_wanted():
        kit.emit({"topic": topic, "host": host})
    else:
        kit.say(kit.printable(f"the record of {topic}{f' on {host}' if host else ''} is removed"))


@app.command()
def drain(
    topic: Topic,
    wait: Annotated[float, typer.Option(help="Seconds to wait; by default the service's drain_timeout")] = 0.0,
) -> None:
    """Take no new work, wait for what is in flight."""
    seconds: dict[str, Any] = {"wait": wait} if wait else {}
    with kit.client(timeout=wait + 60 if wait else 600.0) as client:
        left = client.call(CONTROL_TOPIC, "service_drain", type=list[str], topic=topic, **seconds)
    if kit.json_wanted():
        kit.emit({"topic": topic, "still_running": left})
    elif left:
        kit.say(f"{kit.printable(topic)} takes no new work; still in flight:")
        for line in left:
            kit.say(f"  {kit.printable(line)}")
    else:
        kit.say(f"{kit.printable(topic)} takes no new work, and nothing is left in flight.")
    if left:
        raise typer.Exit(FAILED)


def _holder(member: MemberVersion) -> str:
    return f"{member.host} {member.version} ({member.why})" if member.host else f"{member.version} ({member.why})"


def _on(host: str) -> dict[str, Any]:
    # Not `host`: that one is the client's own, and would choose another daemon.
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
