"""`ostler driver reset`: lets the calls of a driver through again."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.types import CONTROL_TOPIC, DriverStatus


@kit.shows(DriverStatus)
def reset(
    driver: Annotated[str, typer.Argument(metavar="SERVICE/NAME", help="The driver: volume/local", show_default=False)],
    host: Annotated[str | None, typer.Option(help="The driver of this host", show_default=False)] = None,
) -> None:
    """Let the calls of a driver through again.

    Closes its circuit breaker without waiting for a trial, and forgets that its last calls have failed.
    """
    service, _, name = driver.partition("/")  # the daemon refuses what is not a driver
    with kit.client() as client:
        status = client.on(type=DriverStatus, host=host).call(CONTROL_TOPIC, "driver.reset", service=service, name=name)
    if kit.json_wanted():
        kit.emit(status)
        return
    kit.say(kit.printable(f"{driver} is {status.state}, its circuit breaker is {status.breaker}."))
