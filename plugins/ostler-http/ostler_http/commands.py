"""`ostler http …`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from ostler import NotFound, ServiceNotFound, ServiceStatus
from ostler.cli import kit
from ostler_http.api_types import HttpStatus

_MANAGERS = ("http", "ostler_http.manager:HttpManager")
app = kit.app(help="Show where HTTP services listen and what they serve")


class HttpAddress(msgspec.Struct, frozen=True):
    """An address of an HTTP service.

    Attributes:
        service: The service.
        address: Where it listens, as clients write it.
    """

    service: str
    address: str


class LoginLink(msgspec.Struct, frozen=True):
    """A link that logs a browser in once.

    Attributes:
        service: The service.
        link: The link, with its code.
    """

    service: str
    link: str


@app.command()
@kit.view
@kit.shows(HttpAddress, many=True)
def address(
    service: Annotated[str, typer.Argument(help="Only this service; without it all of this host")] = "",
) -> None:
    """Print where HTTP services listen, one address a line, with the ports that were chosen."""
    rows = [HttpAddress(each.topic, url) for each in _statuses(service) for url in each.addresses]
    if kit.json_wanted():
        kit.emit(rows)
        return
    for row in rows:
        kit.say(row.address if service else f"{row.service} {row.address}")


@app.command("login-link")
@kit.shows(LoginLink)
def login_link(
    service: Annotated[str, typer.Argument(help="The service; by default the first that has a web page")] = "",
) -> None:
    """Print a link that logs a browser in once.

    It is valid for five minutes. Whoever opens it acts as you, until the session ends.
    """
    with kit.client() as client:
        topics = [service] if service else [each.topic for each in _statuses("") if _has_page(each)]
        if not topics:
            raise NotFound("no HTTP service of this host has a web page", hint='mount one with app = "ui"')
        link = client.on(type=str).call(topics[0], "login_link")
    if kit.json_wanted():
        kit.emit(LoginLink(topics[0], link))
    else:
        kit.say(link)


def _has_page(status: HttpStatus) -> bool:
    return any(mount.app == "ui" for mount in status.mounts)


@app.command("list")
@kit.view
@kit.shows(HttpStatus, many=True)
def list_services() -> None:
    """List the HTTP services of this host with their addresses and mounts."""
    kit.show_table(_statuses(""), _COLUMNS, empty="No HTTP service is running.")


def _statuses(service: str) -> list[HttpStatus]:
    with kit.client() as client:
        found = client.on(type=list[ServiceStatus]).call("ostler", "service_list")
        topics = list(dict.fromkeys(each.topic for each in found if each.manager in _MANAGERS))
        if service and service not in topics:
            raise NotFound(
                f"{service} is no HTTP service of this host", hint=f"available: {', '.join(topics) or 'none'}"
            )
        statuses = []
        for topic in [service] if service else topics:
            try:
                statuses.append(client.on(type=HttpStatus).call(topic, "http_status"))
            except ServiceNotFound:  # on another host
                if service:
                    raise
        return statuses


_COLUMNS = [
    kit.Column("topic", priority=0, key=True),
    kit.Column("addresses", lambda one: ", ".join(one.addresses), priority=0),
    kit.Column("mounts", lambda one: ", ".join(f"{each.path} {each.app}" for each in one.mounts), priority=0),
    kit.Column("connections", right=True, priority=2),
    kit.Column("requests", right=True, priority=2),
    kit.Column("refused", lambda one: sum(one.refused.values()), right=True, priority=2),
]
