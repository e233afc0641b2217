"""`ostler call`: any exposed method of any service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit, method_calls
from ostler.errors import WrongCallKind

app = kit.app(group=False)


@app.command(context_settings={"help_option_names": []})
@kit.shows(Any)
def call(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The service", show_default=False)] = "",
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method", show_default=False)] = "",
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the method")] = None,
    host: Annotated[str | None, typer.Option(help="Call the service on this host", show_default=False)] = None,
    wants_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this help, or with TOPIC and METHOD the method's description")
    ] = False,
) -> None:
    """Call a method of a service and show its result.

    `ostler call TOPIC METHOD --help` shows the arguments of a method, `ostler describe TOPIC` lists the methods. Lists
    and tables are written as JSON.
    Progress is shown while the call runs; Ctrl-C cancels it on the server as well.
    The items of a stream are written as they arrive, one line each; `--timeout` then applies to each item.
    """
    if not (topic and method):
        _help_or_usage(context, wants_help)
        return
    if wants_help:
        with kit.client() as client:
            method_calls.show_method(method_calls.find_method(client, topic, method, host))
        return
    arguments: dict[str, Any] = method_calls.parse_arguments(words or [])
    with kit.client(lenient=True) as client:
        try:
            with kit.progress(f"{topic}.{method}") as on_progress:
                result = method_calls.call_or_relay(client.on(on_progress=on_progress), topic, method, host, arguments)
        except WrongCallKind as error:
            if not error.details.get("streams"):
                raise
            for item in method_calls.stream_or_relay(client, topic, method, host, arguments):
                kit.emit_item(item)
            return
    kit.emit(result)


def _help_or_usage(context: typer.Context, wants_help: bool) -> None:
    if not wants_help:
        context.fail("TOPIC and METHOD are missing")
    print(context.get_help())  # noqa: T201 - the command's output, of several lines
