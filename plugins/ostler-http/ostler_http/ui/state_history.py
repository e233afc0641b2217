"""`StateHistory`: what has become of services, drivers, plugins and hosts since the page is served."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from ostler import Gap, OstlerError

_KEPT = 500
_RETRY_DELAY = 5.0


class StateHistory:
    """Keeps the last events of the topic `ostler`, which say what changed its state. On one loop."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    async def follow(self, client: Any) -> None:
        """Keep what happens from now on; does not return, and goes on after errors."""
        while True:
            try:
                async for item in client.subscribe("ostler"):
                    self.add(item)
            except OstlerError:
                pass  # it is tried again: history is worth no more than that
            await asyncio.sleep(_RETRY_DELAY)

    def add(self, item: Any) -> None:
        """Keep an event; for a gap, the note that some are missing."""
        if isinstance(item, Gap):
            self._events.append({"name": "gap", "at": 0.0, "facts": {"why": "events were lost here"}, "priority": "warn"})
        elif isinstance(item.payload, dict):
            facts = item.payload.get("payload", item.payload)
            facts = facts if isinstance(facts, dict) else {}
            self._events.append(
                {"name": item.name, "host": item.host, "at": item.at, "facts": facts, "priority": item.priority}
            )

    def latest(self, limit: int = 20, **wanted: str) -> list[dict[str, Any]]:
        """Return the newest events whose facts have these values, newest first."""
        found = []
        for event in reversed(self._events):
            if all(event["facts"].get(name) == value for name, value in wanted.items()):
                found.append(event)
                if len(found) == limit:
                    break
        return found
