"""`ostler events`: follow what happens, and what has happened."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.following import until_told
from ostler.messaging.events.event import Event, Gap

app = kit.app(group=False)


@app.command()
def events(
    pattern: Annotated[str, typer.Argument(help="Topic, host, event, `*` for any: volume, volume.*.created")] = "*",
    since: Annotated[
        int,
        typer.Option(
            "--from", min=0, help="Begin with what the journal has of each topic from this number on; 1 for all of it"
        ),
    ] = 0,
    last: Annotated[bool, typer.Option("--last", help="Begin with the last event of each key")] = False,
    count: Annotated[int, typer.Option(min=0, help="End after this many; 0 goes on until Ctrl-C")] = 0,
) -> None:
    """Follow events, one line each, until Ctrl-C; with --json one JSON object a line.

    A gap in the numbers of a publisher is shown as a line of its own. On journaled topics a gap is filled from the
    journal where that has the events.
    """
    seen = 0
    with until_told(), kit.client() as client:
        for event in client.events(pattern, since=since or None, last=last, refetch=True):
            print(line_of(event), flush=True)  # noqa: T201 - the command's output
            seen += 1
            if count and seen >= count:
                return


def line_of(event: Event | Gap) -> str:
    """Return an event, or a gap in the numbers of a publisher, as one line."""
    if isinstance(event, Gap):
        return _gap_line(event)
    if kit.json_wanted():
        # Field by field: on the wire an event is an array, which would tell a reader nothing.
        return kit.to_json({name: getattr(event, name) for name in event.__struct_fields__}, indent=0)
    payload = kit.to_json(event.payload, indent=0)
    priority = f"{event.priority} " if event.priority else ""
    return kit.printable(f"{kit.human_time(event.at)} {priority}{event.key} #{event.number} {payload}")


def _gap_line(gap: Gap) -> str:
    if kit.json_wanted():
        return kit.to_json({"gap": gap._asdict()}, indent=0)
    known = f"events {gap.first} to {gap.last} of" if gap.last else "an unknown number of events of"
    return kit.printable(f"-- missed: {known} {gap.topic} on {gap.host}")
