"""The services of other hosts, as their daemons tell of them: rows of the services table that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostler.clock import Clock
from ostler.store.models import ServiceRow
from ostler.store.services import mark_gone
from ostler.store.store import Store
from ostler.store.versions import packed
from ostler.types import ServiceStatus

_WRITE_EVERY = 15.0
"""Seconds between two writes for a host whose services have not changed: often enough to count as up."""
_PASSING = {"beat", "reported_at"}
"""What changes with every look and is not worth a write."""


class ObservedServices:
    """Keeps what other daemons say of their services.

    Args:
        store: Where the rows are.
        clock: The source of time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._kept: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        self._beats: dict[tuple[str, str], tuple[int, float]] = {}

    def is_news(self, host: str, rows: Sequence[ServiceStatus]) -> bool:
        """Return whether there is something to write, and take note that it is. On one thread."""
        facts = [
            {"topic": row.topic, **{name: value for name, value in self._values(row).items() if name not in _PASSING}}
            for row in rows
        ]
        at, before = self._kept.get(host, (0.0, None))
        now = self._clock.monotonic()
        if facts == before and now - at < _WRITE_EVERY:
            return False
        self._kept[host] = now, facts
        return bool(rows) or facts != before

    def keep(self, host: str, rows: Sequence[ServiceStatus]) -> None:
        """Write the rows of a host.

        Args:
            host: The host.
            rows: All of its services: what else stands in the table of it is gone.

        Raises:
            StoreUnavailable: It cannot be written now.
        """

        def write() -> None:
            for row in rows:
                values = self._values(row)
                place = (ServiceRow.topic == row.topic) & (ServiceRow.host == host)
                if not ServiceRow.update(values).where(place).execute():
                    ServiceRow.insert(topic=row.topic, host=host, **values).execute()
            others = (ServiceRow.host == host) & ServiceRow.topic.not_in([row.topic for row in rows])
            mark_gone(others, f"{host} has it no more", self._clock.wall())

        self._store.write(write, label=f"services of {host}")

    def _reported_at(self, row: ServiceStatus) -> float:
        """Return when the last report of a service was seen first: to look again makes it no younger."""
        place = (row.host, row.topic)
        beat, at = self._beats.get(place, (None, 0.0))
        if beat != row.beat:
            at = self._clock.wall()
            self._beats[place] = row.beat, at
        return at

    def _values(self, row: ServiceStatus) -> dict[str, Any]:
        return {
            "manager": row.manager,
            "rpc_version": row.rpc_version,
            "namespaces": packed(row.namespaces),
            "state": str(row.state),
            "why": row.why,
            "since": row.since,
            "beat": row.beat,
            # Its clocks are not ours: that its number grows is what counts, and when we saw that first.
            "boot_id": f"of {row.host}",
            "boot_time": 0.0,
            "reported_at": self._reported_at(row),
            "enabled": row.enabled,
            "disabled_reason": row.disabled_reason,
            "disabled_by": row.disabled_by,
        }
