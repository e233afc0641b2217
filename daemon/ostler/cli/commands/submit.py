"""`ostler submit`: a request that is stored, and survives this command and the daemon."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit, method_calls
from ostler.cli.operation_output import wait_for_end

app = kit.app(group=False)


@app.command()
@kit.shows(Any)
def submit(
    topic: Annotated[str, typer.Argument(help="The service", show_default=False)],
    method: Annotated[str, typer.Argument(help="The method", show_default=False)],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the method")] = None,
    host: Annotated[str | None, typer.Option(help="Submit it to the service on this host", show_default=False)] = None,
    request_id: Annotated[
        str,
        typer.Option(
            "--id", help="Id of the operation; the same id again returns the same operation", show_default=False
        ),
    ] = "",
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time in which the operation must end: 30, 5min, 2h", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and show the result")] = False,
) -> None:
    """Submit an operation to a service; return when it is stored.

    The operation runs in the daemon and survives a restart of it; `ostler operation` lists, watches and cancels it.
    With `--wait` Ctrl-C asks whether to cancel the operation; without a terminal it goes on.
    """
    arguments: dict[str, Any] = method_calls.parse_arguments(words or [])
    options: dict[str, Any] = {"host": host, "time_limit": method_calls.parse_timeout(time_limit)}
    with kit.client(lenient=True) as client:
        operation = client.on(request_id=request_id, **options).submit(topic, method, **arguments)
        if wait:
            kit.emit(wait_for_end(operation))
            return
    kit.emit(operation.status if kit.json_wanted() else operation.id)
