"""Events: what is in the journal, and what happens now."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ostler import OstlerError
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit

_SHOWN = 100
_READ = 200
_AT_ONCE = 5
_MAX_TOPICS = 50


class EventsPage(Page):
    """The newest events of journaled topics, and live ones."""

    path = "/events"
    title = "Events"
    template = "events.html"
    methods = ("event_topics",)
    interval = None

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the newest events of the journal that fit, newest first."""
        pattern = visit.request.query_params.get("pattern", "").strip()
        topics = await visit.call("event_topics")
        fits = matcher(pattern)
        events = [event for event in await _newest(visit, topics) if fits(event)]
        return {"pattern": pattern, "journaled": [topic[0] for topic in topics], "events": events[:_SHOWN]}


def matcher(pattern: str) -> Callable[[dict[str, Any]], bool]:
    """Return what says whether an event fits: by its key or the leading parts of it, with `*` for any characters."""
    body = ".*".join(re.escape(part) for part in pattern.rstrip(".").split("*"))
    match = re.compile(rf"{body}(\..*)?" if pattern else ".*", re.DOTALL).fullmatch
    return lambda event: match(f"{event['topic']}.{event['host']}.{event['name']}") is not None


async def _newest(visit: Visit, topics: list[Any]) -> list[dict[str, Any]]:
    """Return the newest events of topics, newest first; those that cannot be read are left out."""
    positions = [[name, max(first - 1, last - _READ), 0] for name, _, first, last, _ in topics if last >= first]
    found: list[dict[str, Any]] = []
    # A page of the journal has its oldest events first, so that too many topics at once would hide the newest.
    for begin in range(0, min(len(positions), _MAX_TOPICS), _AT_ONCE):
        try:
            arguments = {"positions": positions[begin : begin + _AT_ONCE], "limit": _AT_ONCE * _READ}
            _, events, _ = await visit.call("events_since", arguments)
        except OstlerError:
            continue
        found += [plain_event(event) for event in events]
    return sorted(found, key=lambda event: -event["at"])


_FIELDS = (
    "topic", "host", "name", "payload", "sequence", "epoch", "at", "request_id", "trace", "priority", "journaled",
)  # fmt: skip


def plain_event(event: Any) -> dict[str, Any]:
    """Return an event by the names of its fields, whether it comes as an object or as a list from the wire."""
    if isinstance(event, list | tuple):
        return dict(zip(_FIELDS, event, strict=False))
    return {name: getattr(event, name, "") for name in _FIELDS}
