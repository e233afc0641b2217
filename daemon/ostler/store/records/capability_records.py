"""The last reported capabilities of services."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import peewee

from ostler.availability import is_up
from ostler.clock import Clock, boot_stamp
from ostler.errors import EncodeError
from ostler.store.models import CapabilityRow, ServiceRow
from ostler.store.records.report_ages import ReportAges
from ostler.store.records.service_records import DOWN_TIME
from ostler.store.store import Store
from ostler.types import BootStamp, CapabilityReport, Json, ServiceState

_MAX_AGE = 1e9
"""Seconds that represent an unlimited age: of a report of an earlier boot."""


class CapabilityRecords:
    """The last capabilities of each service. The methods block: on the loop hand them to `store.awrite` or `aread`.

    Args:
        store: Where they are stored.
        clock: The source of time.
        host: This host's name; reports of an earlier boot of it are stale.
    """

    def __init__(self, store: Store, clock: Clock, host: str = "") -> None:
        self._store = store
        self._clock = clock
        self._report_ages = ReportAges(clock, host)
        self._heartbeat_ages = ReportAges(clock, host)

    def save(self, report: CapabilityReport) -> None:
        """Store what a service offers now, replacing its last report; leases are not stored.

        Raises:
            EncodeError: A value is not plain JSON.
            StoreUnavailable: It cannot be written now.
        """
        topic = report.topic
        now = boot_stamp(self._clock)
        row = {
            "topic": topic,
            "host": report.host,
            "backends": _encode_backends(topic, report.backends),
            "boot_id": now.boot_id,
            "boot_time": now.boot_time,
            "reported_at": report.reported_at,
            "instance": report.instance,
            "sequence": report.sequence,
            "details": json.dumps({"ages": report.ages, "withheld": report.withheld}),
        }
        fresh = [getattr(CapabilityRow, name) for name in row if name not in ("topic", "host")]

        def write() -> None:
            CapabilityRow.insert(row).on_conflict(
                conflict_target=[CapabilityRow.topic, CapabilityRow.host],
                preserve=fresh,
                update={CapabilityRow.number: CapabilityRow.number + 1},
            ).execute()

        self._store.write(write, label=f"capabilities of {topic}")

    def list(
        self,
        stale_after: Mapping[str, float] | float = 3 * DOWN_TIME,
        down_times: Mapping[str, float] | float = DOWN_TIME,
    ) -> list[CapabilityReport]:
        """Return the capabilities of all services, in order of topic and host.

        Args:
            stale_after: Seconds after which a report counts as stale: one for all, or by topic.
            down_times: Seconds without a heartbeat after which a service counts as down: one for all, or by topic.
        """
        on = (ServiceRow.topic == CapabilityRow.topic) & (ServiceRow.host == CapabilityRow.host)
        query: Any = (
            CapabilityRow.select(
                CapabilityRow,
                ServiceRow.enabled,
                ServiceRow.state,
                ServiceRow.beat,
                ServiceRow.boot_id.alias("beat_boot_id"),
                ServiceRow.boot_time.alias("beat_boot_time"),
                ServiceRow.reported_at.alias("beat_at"),
            )
            .join(ServiceRow, peewee.JOIN.LEFT_OUTER, on=on)
            .order_by(CapabilityRow.topic, CapabilityRow.host)
        )
        rows = self._store.read(lambda: list(query.dicts()))
        return [self._to_report(row, stale_after, down_times) for row in rows]

    def _to_report(
        self, row: Mapping[str, Any], stale_after: Mapping[str, float] | float, down_times: Mapping[str, float] | float
    ) -> CapabilityReport:
        key = topic, host = row["topic"], row["host"]
        made = BootStamp(row["boot_id"], row["boot_time"], row["reported_at"])
        age = self._report_ages.age(key, host, made, row["number"])
        details = json.loads(row["details"])
        return CapabilityReport(
            topic=topic,
            host=host,
            backends=json.loads(row["backends"]),
            reported_at=row["reported_at"],
            stale=age > _limit_for_topic(stale_after, topic, 3 * DOWN_TIME),
            enabled=bool(row["enabled"]),
            up=self._is_up(key, row, _limit_for_topic(down_times, topic, DOWN_TIME)),
            instance=row["instance"],
            sequence=row["sequence"],
            ages={name: before + min(age, _MAX_AGE) for name, before in details.get("ages", {}).items()},
            withheld=details.get("withheld", {}),
        )

    def _is_up(self, key: tuple[str, str], row: Mapping[str, Any], down_time: float) -> bool:
        if row["beat"] is None:
            return False
        beat = BootStamp(row["beat_boot_id"], row["beat_boot_time"], row["beat_at"])
        age = self._heartbeat_ages.age(key, key[1], beat, row["beat"])
        return is_up(ServiceState(row["state"]), age, down_time)


def _limit_for_topic(limits: Mapping[str, float] | float, topic: str, default: float) -> float:
    return limits.get(topic, default) if isinstance(limits, Mapping) else limits


def _encode_backends(topic: str, backends: Mapping[str, Mapping[str, Json]]) -> str:
    try:
        return json.dumps({name: dict(facts) for name, facts in backends.items()}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(
            f"the capabilities of {topic} are not plain JSON: {error}",
            hint="use numbers, strings, lists, and dictionaries with string keys",
            topic=topic,
        ) from error
