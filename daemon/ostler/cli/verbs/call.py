"""`ostler call`: any exposed method of any service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit, requests
from ostler.errors import WrongPattern

app = kit.app(group=False)


@app.command(context_settings={"help_option_names": []})
def call(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The service", show_default=False)] = "",
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method", show_default=False)] = "",
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments, as the method knows them")
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

    `ostler call TOPIC METHOD --help` shows what the method takes, `ostler describe TOPIC` which methods there are. A
    list or table is written as JSON.
    Progress is shown while the call runs; Ctrl-C cancels it on the server as well.
    What a method yields is written item by item as it comes, one line each; TIME is for each item then.
    """
    if not (topic and method):
        _help_or_usage(context, wants_help)
        return
    if wants_help:
        with kit.client() as client:
            requests.show_method(requests.find_method(client, topic, method, host))
        return
    arguments: dict[str, Any] = requests.arguments_of(words or [])
    seconds = requests.seconds(timeout)
    with kit.client(lenient=True) as client:
        with_timeout = client.on(timeout=seconds)
        try:
            with kit.progress(f"{topic}.{method}") as on_progress:
                result = requests.call(with_timeout.on(on_progress=on_progress), topic, method, host, arguments)
        except WrongPattern as error:
            if not error.facts.get("streams"):
                raise
            for item in requests.stream(with_timeout, topic, method, host, arguments):
                print(_line_of(item), flush=True)  # noqa: T201 - the command's output
            return
    kit.emit(result)


def _line_of(item: object) -> str:
    """Return an item of a stream as one line: as JSON with `--json`, and where it is no plain value."""
    if kit.json_wanted() or isinstance(item, dict | list):
        return kit.to_json(item, indent=0)
    return kit.text_of(item)


def _help_or_usage(context: typer.Context, wants_help: bool) -> None:
    if not wants_help:
        context.fail("TOPIC and METHOD are missing")
    print(context.get_help())  # noqa: T201 - the command's output, of several lines
