"""`ostler cast`: a request without a result."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit, method_calls
from ostler.cli.results import Accepted

app = kit.app(group=False)


@app.command()
@kit.shows(Accepted)
def cast(
    topic: Annotated[str, typer.Argument(help="The service", show_default=False)],
    method: Annotated[str, typer.Argument(help="The method", show_default=False)],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the method")] = None,
    host: Annotated[str | None, typer.Option(help="Send it to the service on this host", show_default=False)] = None,
) -> None:
    """Send a request to a service, and return when it has been accepted; it runs at most once."""
    arguments: dict[str, Any] = method_calls.parse_arguments(words or [])
    with kit.client(lenient=True) as client:
        method_calls.cast_or_relay(client, topic, method, host, arguments)
    if kit.json_wanted():
        kit.emit(Accepted(accepted=True, topic=topic, method=method))
    else:
        kit.confirm_done(f"{topic} has accepted {method}")
