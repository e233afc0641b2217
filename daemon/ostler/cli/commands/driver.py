"""`ostler driver`: the drivers (backends) of services, and what an operator does with them."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.driver_reset import reset
from ostler.cli.results import DriverRow
from ostler.errors import EXIT_FAILURE, InvalidInput, NotFound
from ostler.types import CONTROL_TOPIC, DriverState, DriverStatus, ServiceStatus

app = kit.app(help="List and show drivers with their errors; restart a driver, or abandon a stuck one.")
app.command()(reset)
_RESTART_TIMEOUT = 600.0
"""Seconds to wait for work in progress and the first attempt to initialise."""

DriverArgument = Annotated[
    str, typer.Argument(metavar="SERVICE/NAME", help="The driver, such as volume/local", show_default=False)
]

_LIST_COLUMNS: list[str | kit.Column] = [
    kit.Column("driver", "subject", priority=0, min_width=16),
    kit.Column("host", priority=2),
    kit.Column("kind", "driver", priority=3),
    kit.Column("state", priority=0, min_width=12),
    kit.Column("for", lambda row: kit.human_elapsed(row.since), priority=2, min_width=11),
    kit.Column("calls", right=True, priority=4),
    kit.Column("errors", right=True, priority=1),
    kit.Column("why", priority=0),
]

_DETAIL_FIELDS: list[str | kit.Column] = [
    kit.Column("driver", "subject"), "host", kit.Column("kind", "driver"), "state", "why",
    kit.Column("since", lambda row: kit.human_time(row.since)),
    kit.Column("next attempt", lambda row: kit.human_time(row.retry_at)),
    "pending", "calls", "errors", kit.Column("failed in a row", "failures"), "last_error",
    kit.Column("last error at", lambda row: kit.human_time(row.last_error_at)),
    kit.Column("last success", lambda row: kit.human_time(row.last_success_at)),
    kit.Column("abandoned", "abandoned"),
]  # fmt: skip


@app.command("list")
@kit.view
@kit.shows(DriverRow, many=True)
def list_drivers(
    service: Annotated[str, typer.Argument(help="A service; by default all", show_default=False)] = "",
) -> None:
    """List the drivers of all services with their states."""
    rows = [row for row in _rows() if not service or row.service == service]
    kit.show_table(rows, _LIST_COLUMNS, empty="There are no drivers.")


@app.command()
@kit.view
@kit.shows(DriverRow, many=True)
def show(driver: DriverArgument) -> None:
    """Show one driver: its state and why, its errors, and the last one."""
    rows = _rows()
    service, name = _split(driver)
    found = [row for row in rows if (row.service, row.name) == (service, name)]
    if not found:
        known = ", ".join(row.subject for row in rows) or "none"
        raise NotFound(f"driver {driver} not found", hint=f"available: {known}")
    if kit.json_wanted():
        kit.emit(found)
        return
    for row in found:
        kit.show_fields(row, names=_DETAIL_FIELDS)


@app.command()
@kit.shows(DriverStatus)
def restart(driver: DriverArgument) -> None:
    """Clean up a driver and initialise it again.

    Work in progress is waited for. A driver that waits for its next attempt is initialised at once.
    """
    _call("driver.restart", driver)


@app.command()
@kit.shows(DriverStatus)
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


def _rows() -> list[DriverRow]:
    with kit.client() as client:
        services = client.on(type=list[ServiceStatus]).call(CONTROL_TOPIC, "service_list")
    return [_row(service, status) for service in services for status in service.drivers]


def _row(service: ServiceStatus, status: DriverStatus) -> DriverRow:
    fields = {name: getattr(status, name) for name in DriverStatus.__struct_fields__}
    return DriverRow(subject=f"{service.topic}/{status.name}", service=service.topic, host=service.host, **fields)
