"""`ostler events`: follows new events, and replays those of the journal."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.follow import until_interrupted
from ostler.cli.results import EventGap, EventRow, MissedEvents
from ostler.messaging.events.event import Event, Gap

app = kit.app(group=False)


@app.command()
@kit.shows(EventRow, EventGap, lines=True)
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
            kit.emit_item(event_fields(event) if kit.json_wanted() else format_event(event))
            seen += 1
            if count and seen >= count:
                return


def format_event(event: Event | Gap) -> str:
    """Return an event, or a gap in the numbers of a publisher, as one line."""
    if isinstance(event, Gap):
        return _format_gap(event)
    payload = kit.to_json(event.payload, indent=0)
    priority = f"{event.priority} " if event.priority else ""
    return kit.printable(f"{kit.human_time(event.at)} {priority}{event.key} #{event.sequence} {payload}")


def event_fields(event: Event | Gap) -> EventRow | EventGap:
    """Return an event by field name, or a gap as a field of its own: on the wire an event is an array."""
    if isinstance(event, Gap):
        return EventGap(gap=MissedEvents(**event._asdict()))
    return EventRow(**{name: getattr(event, name) for name in event.__struct_fields__})


def _format_gap(gap: Gap) -> str:
    known = f"events {gap.first} to {gap.last} of" if gap.last else "an unknown number of events of"
    return kit.printable(f"-- missed: {known} {gap.topic} on {gap.host}")
