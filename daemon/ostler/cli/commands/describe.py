"""`ostler describe`: the methods of a service."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import invocation, kit, method_calls
from ostler.cli.results import TopicRow
from ostler.types import CONTROL_TOPIC, MethodDescription, ServiceStatus

app = kit.app(group=False)


@app.command()
@kit.shows(MethodDescription, list[MethodDescription], list[TopicRow])
def describe(
    topic: Annotated[
        str,
        typer.Argument(
            help="The service; `ostler` is the daemon itself. Without one, all are listed", show_default=False
        ),
    ] = "",
    method: Annotated[str, typer.Argument(help="Show this method in full", show_default=False)] = "",
) -> None:
    """Show the methods of a service and their arguments."""
    with kit.client() as client:
        if not topic:
            _list_topics(client)
            return
        if method:
            method_calls.show_method(method_calls.find_method(client, topic, method))
            return
        methods = method_calls.describe_service(client, topic)
    columns: list[str | kit.Column] = [
        kit.Column("method", method_calls.format_signature, priority=0, min_width=24),
        kit.Column("role", priority=1),
        kit.Column("version", priority=2),
        kit.Column("description", _first_line, priority=1),
    ]
    kit.show_table(methods, columns, empty=f"{topic} has no methods.")


def _list_topics(client: invocation.ClientProtocol) -> None:
    """List the services that can be called, with the hosts that have them."""
    services = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
    hosts: dict[str, list[str]] = {CONTROL_TOPIC: [each.host for each in services if each.here][:1]}
    for each in services:
        if each.up:
            hosts.setdefault(each.topic, []).append(each.host)
    found = {(each.topic, each.rpc_version) for each in services if each.up}
    versions = {topic: ", ".join(sorted(version for other, version in found if other == topic)) for topic in hosts}
    rows = [TopicRow(topic=topic, version=versions[topic], hosts=hosts[topic]) for topic in sorted(hosts)]
    columns: list[str | kit.Column] = [
        kit.Column("topic", priority=0),
        kit.Column("version", priority=1),
        kit.Column("hosts", priority=0),
    ]
    kit.show_table(rows, columns)


def _first_line(method: MethodDescription) -> str:
    return method.doc.strip().partition("\n")[0]
