"""`ostler call`: any exposed method of any service."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit, requests

app = kit.app(group=False)


@app.command(context_settings={"help_option_names": []})
def call(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The service", show_default=False)] = "",
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method", show_default=False)] = "",
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments; a value is JSON, or else text")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The service on this host", show_default=False)] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the call may take: 30, 5min, 2h", show_default=False)
    ] = None,
    wants_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this, or with TOPIC and METHOD the method's description")
    ] = False,
) -> None:
    """Call a method of a service and show its result.

    `ostler call TOPIC METHOD --help` shows what the method takes, `ostler describe TOPIC` which methods there are.
    Progress is shown while the call runs; Ctrl-C cancels it on the server as well.
    """
    if not (topic and method):
        _help_or_usage(context, wants_help)
        return
    with kit.client(requests.seconds(timeout)) as client, kit.progress(f"{topic}.{method}") as on_progress:
        if wants_help:
            requests.show_method(requests.find_method(client, topic, method))
            return
        arguments = requests.arguments_for(client, topic, method, words or [])
        result = client.call(
            topic, method, host=host, timeout=requests.seconds(timeout), on_progress=on_progress, **arguments
        )
    kit.emit(result)


def _help_or_usage(context: typer.Context, wants_help: bool) -> None:
    if not wants_help:
        context.fail("TOPIC and METHOD are missing")
    kit.say(context.get_help())
