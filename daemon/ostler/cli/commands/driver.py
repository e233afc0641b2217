"""`ostler driver`: the drivers (backends) of services, and what an operator does with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit
from ostler.errors import EXIT_FAILURE, InvalidInput, NotFound
from ostler.types import CONTROL_TOPIC, DriverState, DriverStatus, ServiceStatus

app = kit.app(help="List and show drivers with their errors; restart a driver, or abandon a stuck one.")
_RESTART_TIMEOUT = 600.0
"""Seconds to wait for work in progress and the first attempt to initialise."""

DriverArgument = Annotated[
    str, typer.Argument(metavar="SERVICE/NAME", help="The driver, such as volume/local", show_default=False)
]

_LIST_COLUMNS: list[str | kit.Column] = [
    kit.Column("driver", "subject"), "host", kit.Column("kind", "driver"), "state",
    kit.Column("since", lambda row: kit.human_time(row["since"])),
    kit.Column("calls", "calls"), kit.Column("errors", "errors"), "why",
]  # fmt: skip

_DETAIL_FIELDS: list[str | kit.Column] = [
    kit.Column("driver", "subject"), "host", kit.Column("kind", "driver"), "state", "why",
    kit.Column("since", lambda row: kit.human_time(row["since"])),
    kit.Column("next attempt", lambda row: kit.human_time(row["retry_at"]) if row["retry_at"] else "-"),
    "pending", "calls", "errors", kit.Column("failed in a row", "failures"), "last_error",
    kit.Column("last error at", lambda row: kit.human_time(row["last_error_at"]) if row["last_error_at"] else "-"),
    kit.Column("last success", lambda row: kit.human_time(row["last_success_at"]) if row["last_success_at"] else "-"),
    kit.Column("abandoned", "abandoned"),
]  # fmt: skip


@app.command("list")
def list_drivers(
    service: Annotated[str, typer.Argument(help="A service; by default all", show_default=False)] = "",
) -> None:
    """List the drivers of all services with their states."""
    rows = [row for row in _rows() if not service or row["service"] == service]
    kit.show_table(rows, _LIST_COLUMNS, empty="There are no drivers.")


@app.command()
def show(driver: DriverArgument) -> None:
    """Show one driver: its state and why, its errors, and the last one."""
    rows = _rows()
    service, name = _split(driver)
    found = [row for row in rows if (row["service"], row["name"]) == (service, name)]
    if not found:
        known = ", ".join(row["subject"] for row in rows) or "none"
        raise NotFound(f"driver {driver} not found", hint=f"available: {known}")
    for row in found:
        kit.show_fields(row, names=_DETAIL_FIELDS)


@app.command()
def restart(driver: DriverArgument) -> None:
    """Clean up a driver and initialise it again.

    Work in progress is waited for. A driver that waits for its next attempt is initialised at once.
    """
    _call("driver.restart", driver)


@app.command()
def abandon(driver: DriverArgument) -> None:
    """Give up a stuck driver and create another instance.

    The threads that hang in it cannot be ended: they stay until what they wait for returns, or the daemon ends.
    """
    _call("driver.abandon", driver)


def _call(method: str, driver: str) -> None:
    service, _, name = driver.partition("/")  # the daemon refuses what is not a driver
    with kit.client(timeout=_RESTART_TIMEOUT) as client:
        found = client.on(type=DriverStatus).call(CONTROL_TOPIC, method, service=service, name=name)
    if kit.json_wanted():
        kit.emit(found)
    else:
        why = found.pending or found.why
        kit.say(kit.printable(f"driver {driver} is {found.state}{f': {why}' if why else ''}"))
    if found.state in (DriverState.FAILED, DriverState.STUCK):
        raise typer.Exit(EXIT_FAILURE)


def _split(driver: str) -> tuple[str, str]:
    service, slash, name = driver.partition("/")
    if not (service and slash and name):
        raise InvalidInput(f"{driver!r} is not a driver", hint="write SERVICE/NAME, such as volume/local")
    return service, name


def _rows() -> list[dict[str, Any]]:
    with kit.client() as client:
        services = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
    return [_row(service, status) for service in services for status in service.drivers]


def _row(service: ServiceStatus, status: DriverStatus) -> dict[str, Any]:
    fields = {name: getattr(status, name) for name in DriverStatus.__struct_fields__}
    subject = f"{service.topic}/{status.name}"
    return {"subject": subject, "service": service.topic, "host": service.host, **fields, "state": str(status.state)}
