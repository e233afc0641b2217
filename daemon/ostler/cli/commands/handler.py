"""`ostler handler`: methods of managers that are called with events."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.manager_types import EventHandlerStatus
from ostler.types import CONTROL_TOPIC

app = kit.app(help="List event handlers: what they follow, and their errors.")


def format_state(handler: EventHandlerStatus) -> str:
    """Return the state of a handler: handling, failing, not following a host, or waiting."""
    if handler.handling:
        return f"handling {handler.handling} for {kit.human_elapsed(handler.handling_since)}"
    if handler.last_error:
        return "failing"
    if handler.unreachable or not handler.hosts:
        return "not following all hosts"
    return "waiting"


COLUMNS = [
    kit.Column("service", priority=0, key=True),
    kit.Column("handler", priority=0, key=True),
    kit.Column("patterns", lambda handler: ", ".join(handler.patterns), priority=3),
    kit.Column("hosts", lambda handler: ", ".join(handler.hosts) or "-", priority=4),
    kit.Column("state", format_state, priority=0),
    kit.Column("handled", right=True),
    kit.Column("errors", right=True),
    kit.Column("gaps", right=True, priority=2),
    kit.Column("waiting", right=True, priority=2),
    kit.Column(
        "last error",
        lambda handler: "; ".join(
            [*filter(None, [handler.last_error]), *(f"{host}: {why}" for host, why in handler.unreachable.items())]
        ),
    ),
]


@app.command("list")
@kit.view
@kit.shows(EventHandlerStatus, many=True)
def list_handlers(
    host: Annotated[str | None, typer.Option(help="The handlers of this host", show_default=False)] = None,
) -> None:
    """List event handlers, with what they have handled so far."""
    with kit.client() as client:
        handlers = client.on(type=list[EventHandlerStatus], host=host).call(CONTROL_TOPIC, "event_handlers")
    kit.show_table(handlers, COLUMNS, empty="There are no event handlers.")
