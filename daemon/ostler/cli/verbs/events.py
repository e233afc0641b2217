"""`ostler events`: follow what happens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit
from ostler.cli.following import until_told

app = kit.app(group=False)


@app.command()
def events(
    pattern: Annotated[
        str, typer.Argument(help="Topic, host and event, `*` for any: volume, volume.*.created", show_default=False)
    ] = "*",
    count: Annotated[int, typer.Option(min=0, help="End after this many; 0 goes on until Ctrl-C")] = 0,
) -> None:
    """Follow events, one line each, until Ctrl-C; with --json one JSON object a line.

    A gap in the numbers of a publisher is shown as a line of its own.
    """
    seen = 0
    with until_told(), kit.client() as client:
        for event in client.events(pattern):
            print(_line(event), flush=True)  # noqa: T201 - the command's output
            seen += 1
            if count and seen >= count:
                return


def _line(event: Any) -> str:
    if kit.json_wanted():
        return kit.to_json(event, indent=0)
    return kit.printable(str(event))
