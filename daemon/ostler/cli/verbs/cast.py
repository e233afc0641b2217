"""`ostler cast`: a request whose result nobody waits for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit, requests

app = kit.app(group=False)


@app.command()
def cast(
    topic: Annotated[str, typer.Argument(help="The service", show_default=False)],
    method: Annotated[str, typer.Argument(help="The method", show_default=False)],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments, as the method knows them")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The service on this host", show_default=False)] = None,
) -> None:
    """Hand a request to a service, and return when it has accepted it; it runs at most once."""
    arguments: dict[str, Any] = requests.arguments_of(words or [])
    with kit.client(lenient=True) as client:
        requests.cast(client, topic, method, host, arguments)
    if kit.json_wanted():
        kit.emit({"accepted": True, "topic": topic, "method": method})
    else:
        kit.say(kit.printable(f"{topic} has accepted {method}"))
