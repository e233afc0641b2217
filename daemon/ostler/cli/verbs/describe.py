"""`ostler describe`: what can be called."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit, requests
from ostler.types import MethodDescription

app = kit.app(group=False)


@app.command()
def describe(
    topic: Annotated[str, typer.Argument(help="The service; `ostler` is the daemon itself", show_default=False)],
    method: Annotated[str, typer.Argument(help="One method, with all that is said of it", show_default=False)] = "",
) -> None:
    """Show which methods a service has, and what they take."""
    with kit.client() as client:
        if method:
            requests.show_method(requests.find_method(client, topic, method))
            return
        methods = requests.describe(client, topic)
    columns: list[str | kit.Column] = [
        kit.Column("method", requests.signature),
        "role",
        "version",
        kit.Column("what it does", _first_line),
    ]
    kit.show_table(methods, columns, empty=f"{topic} has no methods.")


def _first_line(method: MethodDescription) -> str:
    return method.doc.strip().partition("\n")[0]
