"""The services of other hosts as reported by their daemons: rows of the services table that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostler.clock import Clock
from ostler.store.models import ServiceRow
from ostler.store.records.member_versions import encode_namespaces
from ostler.store.records.service_records import mark_rows_gone, override_columns
from ostler.store.store import Store
from ostler.types import ServiceStatus

_WRITE_INTERVAL = 15.0
"""Seconds between two writes for a host whose services have not changed: often enough to count as up."""
_VOLATILE_COLUMNS = {"beat", "reported_at"}
"""Fields that change with every poll and are not worth a write."""


class RemoteServices:
    """Stores what other daemons report of their services.

    Args:
        store: Where the rows are stored.
        clock: The source of time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._last_written: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        self._last_heartbeats: dict[tuple[str, str], tuple[int, float]] = {}

    def needs_write(self, host: str, rows: Sequence[ServiceStatus]) -> bool:
        """Return whether there is something to write, and record that it is. On one thread."""
        facts = [
            {
                "topic": row.topic,
                **{name: value for name, value in self._column_values(row).items() if name not in _VOLATILE_COLUMNS},
            }
            for row in rows
        ]
        at, before = self._last_written.get(host, (0.0, None))
        now = self._clock.monotonic()
        if facts == before and now - at < _WRITE_INTERVAL:
            return False
        self._last_written[host] = now, facts
        return bool(rows) or facts != before

    def save(self, host: str, rows: Sequence[ServiceStatus]) -> None:
        """Write the rows of a host.

        Args:
            host: The host.
            rows: All of its services: its other rows in the table are marked as removed.

        Raises:
            StoreUnavailable: It cannot be written now.
        """

        def write() -> None:
            for row in rows:
                values = self._column_values(row)
                place = (ServiceRow.topic == row.topic) & (ServiceRow.host == host)
                if not ServiceRow.update(values).where(place).execute():
                    ServiceRow.insert(topic=row.topic, host=host, **values).execute()
            others = (ServiceRow.host == host) & ServiceRow.topic.not_in([row.topic for row in rows])
            mark_rows_gone(others, f"{host} no longer has it", self._clock.wall())

        self._store.write(write, label=f"services of {host}")

    def _reported_at(self, row: ServiceStatus) -> float:
        """Return when the last report of a service was first seen: polling it again does not make it younger."""
        place = (row.host, row.topic)
        beat, at = self._last_heartbeats.get(place, (None, 0.0))
        if beat != row.beat:
            at = self._clock.wall()
            self._last_heartbeats[place] = row.beat, at
        return at

    def _column_values(self, row: ServiceStatus) -> dict[str, Any]:
        return {
            "manager": row.manager,
            "rpc_version": row.rpc_version,
            "namespaces": encode_namespaces(row.namespaces),
            "state": str(row.state),
            "why": row.why,
            "since": row.since,
            "beat": row.beat,
            # Its clocks are not ours: what counts is when we first saw its number grow.
            "boot_id": f"of {row.host}",
            "boot_time": 0.0,
            "reported_at": self._reported_at(row),
            "enabled": row.enabled,
            "disabled_reason": row.disabled_reason,
            "disabled_by": row.disabled_by,
            # Frozen by its own host; whether it is forced down is this host's own word, and is not touched.
            **override_columns("frozen", row.frozen),
        }
