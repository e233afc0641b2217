"""`ostler describe`: the methods of a service."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit, method_calls
from ostler.types import MethodDescription

app = kit.app(group=False)


@app.command()
def describe(
    topic: Annotated[str, typer.Argument(help="The service; `ostler` is the daemon itself", show_default=False)],
    method: Annotated[str, typer.Argument(help="Show this method in full", show_default=False)] = "",
) -> None:
    """Show the methods of a service and their arguments."""
    with kit.client() as client:
        if method:
            method_calls.show_method(method_calls.find_method(client, topic, method))
            return
        methods = method_calls.describe_service(client, topic)
    columns: list[str | kit.Column] = [
        kit.Column("method", method_calls.format_signature),
        "role",
        "version",
        kit.Column("description", _first_line),
    ]
    kit.show_table(methods, columns, empty=f"{topic} has no methods.")


def _first_line(method: MethodDescription) -> str:
    return method.doc.strip().partition("\n")[0]
