"""`ostler events`: follows new events, and replays those of the journal."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.follow import until_interrupted
from ostler.messaging.events.event import Event, Gap

app = kit.app(group=False)


@app.command()
def events(
    pattern: Annotated[
        str, typer.Argument(help="TOPIC.HOST.EVENT, with `*` as wildcard: volume, volume.*.created")
    ] = "*",
    since: Annotated[
        int,
        typer.Option(
            "--from", min=0, help="Start with the journaled events of each topic from this number on; 1 for all"
        ),
    ] = 0,
    last: Annotated[bool, typer.Option("--last", help="Start with the last event of each key")] = False,
    count: Annotated[int, typer.Option(min=0, help="Exit after this many events; 0: run until Ctrl-C")] = 0,
) -> None:
    """Follow events, one line each, until Ctrl-C; with --json one JSON object per line.

    A gap in the numbers of a publisher is shown as a separate line. On journaled topics, events that are missing are
    read from the journal if it still has them.
    """
    seen = 0
    with until_interrupted(), kit.client() as client:
        for event in client.events(pattern, since=since or None, last=last, refetch=True):
            print(format_event(event), flush=True)  # noqa: T201 - the command's output
            seen += 1
            if count and seen >= count:
                return


def format_event(event: Event | Gap) -> str:
    """Return an event, or a gap in the numbers of a publisher, as one line."""
    if isinstance(event, Gap):
        return _format_gap(event)
    if kit.json_wanted():
        # By field name: on the wire an event is an array, which would be unreadable.
        return kit.to_json({name: getattr(event, name) for name in event.__struct_fields__}, indent=0)
    payload = kit.to_json(event.payload, indent=0)
    priority = f"{event.priority} " if event.priority else ""
    return kit.printable(f"{kit.human_time(event.at)} {priority}{event.key} #{event.sequence} {payload}")


def _format_gap(gap: Gap) -> str:
    if kit.json_wanted():
        return kit.to_json({"gap": gap._asdict()}, indent=0)
    known = f"events {gap.first} to {gap.last} of" if gap.last else "an unknown number of events of"
    return kit.printable(f"-- missed: {known} {gap.topic} on {gap.host}")
