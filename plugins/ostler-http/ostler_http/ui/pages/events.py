"""Events: what is in the journal, and what happens now."""

from __future__ import annotations

from typing import Any

from ostler import OstlerError
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit

_SHOWN = 100


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
        events = await _newest(visit, [topic for topic in topics if _may_fit(pattern, topic[0])])
        return {"pattern": pattern, "journaled": [topic[0] for topic in topics], "events": events}


def _may_fit(pattern: str, topic: str) -> bool:
    wanted = pattern.split(".", maxsplit=1)[0].rstrip("*")
    return (
        topic.startswith(wanted) if pattern.split(".", maxsplit=1)[0].endswith("*") or not wanted else topic == wanted
    )


async def _newest(visit: Visit, topics: list[Any]) -> list[dict[str, Any]]:
    """Return the newest events of topics, newest first; a topic that cannot be read is left out."""
    positions = [[name, max(first - 1, last - _SHOWN), 0] for name, _, first, last, _ in topics if last >= first]
    if not positions:
        return []
    try:
        _, events, _ = await visit.call("events_since", {"positions": positions, "limit": 1000})
    except OstlerError:
        return []
    found = [plain_event(event) for event in events]
    return sorted(found, key=lambda event: -event["at"])[:_SHOWN]


_FIELDS = (
    "topic", "host", "name", "payload", "sequence", "epoch", "at", "request_id", "trace", "priority", "journaled",
)  # fmt: skip


def plain_event(event: Any) -> dict[str, Any]:
    """Return an event by the names of its fields, whether it comes as an object or as a list from the wire."""
    if isinstance(event, list | tuple):
        return dict(zip(_FIELDS, event, strict=False))
    return {name: getattr(event, name, "") for name in _FIELDS}
