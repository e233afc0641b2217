"""Events as they come, and from the journal: `/events`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ostler import Event, Gap, InvalidInput
from ostler_http.api.frames import Frame, format_of
from ostler_http.api.problems import HttpError, to_rfc3339
from ostler_http.api.request import EVENT_STREAM, given_twice

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Routes

_MAX_PATTERNS = 20
_MAX_ID_SIZE = 4000
"""Characters of an id: proxies take headers of 8 kB."""
_NO_TOPICS = "-"
"""The id while no topic has a journal: browsers do not send an empty one again."""


class EventHandlers:
    """Serves events.

    The id of a frame says how far the client is in each journaled topic: `volume:12;images:3`. A client that connects
    again with it in `Last-Event-ID`, as browsers do by themselves, gets what it has missed from the journal.

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add_to(self, routes: Routes) -> None:
        """Add the path."""
        routes.add("GET", "/events", self.follow)

    async def follow(self, request: Request) -> None:
        """Serve events: server-sent events, or NDJSON by `Accept`."""
        patterns, since, last = _read_query(request)
        positions = read_positions(request.header(b"last-event-id") or since)
        kind = format_of(request, EVENT_STREAM)
        frames = self._frames(request, patterns, positions, last=last)
        await self._context.streams.send(request, kind, frames, timeout=request.timeout(None))

    async def _frames(
        self, request: Request, patterns: list[str], asked: Mapping[str, int] | None, *, last: bool
    ) -> AsyncGenerator[Frame, None]:
        topics = await self._context.control(request, "event_topics")
        covered = {topic: last for topic, _, _, last, _ in topics if _covers(patterns, topic)}
        # A topic that a client does not name began after it left.
        positions = covered if asked is None else {topic: asked.get(topic, 0) for topic in covered} | dict(asked)
        since = {topic: number for topic, number in positions.items() if _covers(patterns, topic)}
        cursor = _Cursor(since)
        # Their journal is another one, or has lost its end: the id goes on from where that is.
        ahead = {topic for topic, number in since.items() if number > covered.get(topic, 0)}
        # Whoever connects again has seen the last events.
        is_new = last and asked is None
        stream = self._context.client(request).subscribe(
            *patterns, since=None if is_new else since or None, last=is_new, refetch=True
        )
        async with stream:
            yield Frame("ready", {"patterns": patterns, "positions": dict(since)}, cursor.id)
            async for found in stream:
                if isinstance(found, Gap):
                    if found.topic in ahead:
                        ahead.discard(found.topic)
                        cursor.reset(found.topic, covered.get(found.topic))
                    yield Frame("gap", _show_gap(found), cursor.move(found.topic, found.last, found.journaled))
                else:
                    shown = _show_event(found)
                    yield Frame("event", shown, cursor.move(found.topic, found.sequence, bool(found.journaled)))


class _Cursor:
    """How far a client is, and the text of that; written again only for topics that are journaled."""

    def __init__(self, positions: Mapping[str, int]) -> None:
        self._positions = dict(positions)
        self.id = write_positions(self._positions)

    def move(self, topic: str, number: int, journaled: bool) -> str:
        """Return the id after an event of a topic; unchanged for one whose topic has no journal."""
        if number and (journaled or topic in self._positions):
            self._positions.pop(topic, None)  # those that moved last are at the end
            self._positions[topic] = number
            self.id = write_positions(self._positions)
        return self.id

    def reset(self, topic: str, number: int | None) -> None:
        """Go on from another number of a topic; None for a topic that has no journal here."""
        self._positions.pop(topic, None)
        if number is not None:
            self._positions[topic] = number
        self.id = write_positions(self._positions)


def write_positions(positions: Mapping[str, int]) -> str:
    """Return positions as an id; those of the topics that moved last, if all would be too long."""
    parts = [f"{quote(topic, safe='')}:{number}" for topic, number in positions.items()]
    while parts and sum(map(len, parts)) + len(parts) > _MAX_ID_SIZE:
        del parts[0]
    return ";".join(parts) or _NO_TOPICS


def read_positions(text: str) -> dict[str, int] | None:
    """Return the positions in an id, None for an empty one: from now on.

    Raises:
        HttpError: It is not one of ours.
    """
    if not text:
        return None
    if text == _NO_TOPICS:
        return {}
    found = {}
    for part in text.split(";"):
        topic, colon, number = part.rpartition(":")
        if not (topic and colon and number.isascii() and number.isdigit() and len(number) <= 18):
            error = InvalidInput(
                "Last-Event-ID (or `since`) is not the id of an event of this API",
                hint="write volume:12 or leave it out",
            )
            raise HttpError(400, error)
        found[unquote(topic)] = int(number)
    return found


def _read_query(request: Request) -> tuple[list[str], str, bool]:
    patterns, since, last = [], "", False
    for name, value in request.query_items():
        if name == "topic":
            patterns.append(value)
        elif name == "since" and since:
            raise given_twice(name)
        elif name == "since":
            since = value
        elif name == "last" and value in ("true", "false"):
            last = value == "true"
        else:
            error = InvalidInput(
                f"{request.path} takes no query parameter {name[:60]!r}", hint="it takes: topic, since, last=true"
            )
            raise HttpError(400, error)
    if "" in patterns:
        raise HttpError(400, InvalidInput("`topic` is empty", hint="leave it out for all events"))
    if len(patterns) > _MAX_PATTERNS:
        raise HttpError(400, InvalidInput(f"more than {_MAX_PATTERNS} patterns", hint="use fewer, or one with *"))
    return patterns, since, last


def _covers(patterns: Iterable[str], topic: str) -> bool:
    """Return whether events of a topic may match one of the patterns, all if there is none."""
    patterns = list(patterns)
    return not patterns or any(_may_match(pattern, topic) for pattern in patterns)


def _may_match(pattern: str, topic: str) -> bool:
    literal, star, _ = pattern.partition("*")
    first, dot, _ = literal.partition(".")
    return topic == first if dot or not star else topic.startswith(first)


def _show_event(event: Event) -> dict[str, Any]:
    return {
        "topic": event.topic, "host": event.host, "name": event.name, "payload": event.payload,
        "sequence": event.sequence, "epoch": event.epoch, "at": to_rfc3339(event.at), "request_id": event.request_id,
        "trace": event.trace, "priority": event.priority, "journaled": event.journaled,
    }  # fmt: skip


def _show_gap(gap: Gap) -> dict[str, Any]:
    return gap._asdict()
