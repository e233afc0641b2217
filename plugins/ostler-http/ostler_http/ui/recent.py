"""`StateHistory` and `RecentLog`: what has happened lately, for who looks later. Bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from ostler import Gap, OstlerError

_KEPT_EVENTS = 500
_READ_EVENTS = 2000
"""How far back in the journal: most events are of operations, which are not kept."""
_RETRY_DELAY = 5.0
_TOPIC = "ostler"


class StateHistory:
    """Keeps the last events of the topic `ostler`, which say what has become of services, drivers, plugins and hosts.

    It begins with those of the journal, if that topic is in it. On one loop.

    Attributes:
        is_journaled: Whether the journal has the topic, so that history outlives a restart.
    """

    def __init__(self) -> None:
        self.is_journaled = False
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._seen = 0

    async def follow(self, client: Any) -> None:
        """Keep what has happened and happens from now on; does not return, and goes on after errors.

        Args:
            client: Reads the events.
        """
        while True:
            try:
                async with client.subscribe(_TOPIC, since=await self._since(client)) as events:
                    async for item in events:
                        self.add(item)
            except OstlerError:
                pass  # it is tried again: history is worth no more than that
            await asyncio.sleep(_RETRY_DELAY)

    async def _since(self, client: Any) -> dict[str, int] | None:
        """Return the number after which events are wanted: the last one that is known, or some before the newest."""
        topics = await client.call("ostler", "event_topics", {}, timeout=10.0)
        # A topic of the journal is a list: its name, host, first and last number, and epoch.
        journaled = next((topic for topic in topics if topic[0] == _TOPIC), None)
        self.is_journaled = journaled is not None
        if journaled is None:
            return None
        _, _, first, last, _ = journaled
        return {_TOPIC: self._seen if first <= self._seen <= last else max(first - 1, last - _READ_EVENTS)}

    def add(self, item: Any) -> None:
        """Keep an event; for a gap, the note that some are missing."""
        if isinstance(item, Gap):
            lost = {"name": "events lost", "host": item.host, "at": 0.0, "facts": {"topic": item.topic}}
            self._events.append(lost)
            return
        self._seen = item.sequence if item.journaled else self._seen
        # Operations have a page of their own, and are so many that states would be forgotten.
        if isinstance(item.payload, dict) and not item.name.startswith("operation."):
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
