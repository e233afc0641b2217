"""`StateHistory` and `RecentLog`: what has happened since the page is served, for who looks later. Bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from ostler import Gap, OstlerError

_KEPT_EVENTS = 500
_RETRY_DELAY = 5.0


class StateHistory:
    """Keeps the last events of the topic `ostler`, which say what has become of services, drivers, plugins and hosts.

    On one loop.
    """

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)

    async def follow(self, client: Any) -> None:
        """Keep what happens from now on; does not return, and goes on after errors.

        Args:
            client: Reads the events.
        """
        while True:
            try:
                async with client.subscribe("ostler") as events:
                    async for item in events:
                        self.add(item)
            except OstlerError:
                pass  # it is tried again: history is worth no more than that
            await asyncio.sleep(_RETRY_DELAY)

    def add(self, item: Any) -> None:
        """Keep an event; for a gap, the note that some are missing."""
        if isinstance(item, Gap):
            lost = {"name": "events lost", "host": item.host, "at": 0.0, "facts": {"topic": item.topic}}
            self._events.append(lost)
        elif isinstance(item.payload, dict):
            facts = item.payload.get("payload", item.payload)
            self._events.append(
                {"name": item.name, "host": item.host, "at": item.at, "facts": facts if isinstance(facts, dict) else {}}
            )

    def latest(self, limit: int = 20, host: str = "", **wanted: str) -> list[dict[str, Any]]:
        """Return the newest events whose facts have these values, newest first.

        Args:
            limit: The most events.
            host: Only those of this host; empty for all.
            wanted: Names of facts, and their values.
        """
        found: list[dict[str, Any]] = []
        for event in reversed(self._events):
            fits = not host or event["host"] == host
            if fits and all(event["facts"].get(name) == value for name, value in wanted.items()):
                found.append(event)
                if len(found) == limit:
                    break
        return found


class RecentLog:
    """Keeps the last lines of the log. On one loop.

    Args:
        limit: How many; 0 to keep none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._records: deque[dict[str, Any]] = deque(maxlen=limit)

    async def follow(self, client: Any) -> None:
        """Keep what is logged from now on; does not return, and goes on after errors.

        Args:
            client: Reads the log.
        """
        while self._limit:
            try:
                async with aclosing(client.stream("ostler", "log_follow", {})) as batches:
                    async for batch in batches:
                        self._records.extend(batch["records"])
            except OstlerError:
                pass  # as above
            await asyncio.sleep(_RETRY_DELAY)

    def latest(self, fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return the records that fit, newest first."""
        return [record for record in reversed(self._records) if fits(record)]
