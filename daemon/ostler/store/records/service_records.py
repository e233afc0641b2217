"""The services table: the reports of services, and the operator overrides."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ostler.availability import DEFAULT_DOWN_TIME, INFINITE_AGE, is_up
from ostler.clock import Clock, boot_stamp
from ostler.errors import NotFound
from ostler.log import message_id
from ostler.store.models import CapabilityRow, ServiceRow
from ostler.store.records.member_versions import decode_namespaces, encode_namespaces
from ostler.store.records.report_ages import ReportAges
from ostler.store.store import Store
from ostler.types import BootStamp, OperatorOverride, ServiceSign, ServiceState, ServiceStatus

_log = logging.getLogger(__name__)

OverrideKind: TypeAlias = Literal["frozen", "forced_down"]
_FIRST_MOMENT = 1e-3
DOWN_TIME = DEFAULT_DOWN_TIME
"""Seconds without a report after which a service counts as down, unless specified."""


class Registration(msgspec.Struct, frozen=True):
    """A service's row: its id, whether it joined its cluster with this start, and whether it is frozen."""

    id: int
    added_to_cluster: bool
    frozen: OperatorOverride | None = None


class ServiceReport(msgspec.Struct, frozen=True):
    """The report of a service: its topic, its state, the reason, since when (wall time), and whether it is frozen.

    `frozen` is written with a row that was missing only: otherwise the row has the operator's word, not the report.
    """

    topic: str
    state: ServiceState
    why: str = ""
    since: float = 0.0
    frozen: OperatorOverride | None = None
    signs: Sequence[ServiceSign] = ()


class _ServiceInfo(msgspec.Struct, frozen=True):
    manager: str
    rpc_version: str
    namespaces: str


class ServiceRecords:
    """The rows of all services, and the reports of those on this host.

    The methods block: on the loop hand them to `store.awrite` or `store.aread`.

    Args:
        store: Where the rows are stored.
        clock: The source of time.
        host: This host's name.
    """

    def __init__(self, store: Store, clock: Clock, host: str) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._service_infos: dict[str, _ServiceInfo] = {}
        self._inserted_topics: set[str] = set()
        """Topics with a row: a service that starts while the database cannot be written has none yet."""
        self._report_ages = ReportAges(clock, host)

    def register(
        self, topic: str, manager: str, rpc_version: str, namespaces: Mapping[str, str] | None = None
    ) -> Registration:
        """Record that a service starts here; an earlier operator override still applies.

        Args:
            topic: Its topic.
            manager: The name of its manager.
            rpc_version: The version of its manager.
            namespaces: The version of each of its namespaces.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        self._service_infos[topic] = _ServiceInfo(manager, rpc_version, encode_namespaces(namespaces or {}))
        report = ServiceReport(topic, ServiceState.STARTING, since=self._clock.wall())

        def write() -> Registration:
            if not self._update(report):
                self._insert(report)
            row = ServiceRow.select().where(self._row_filter(topic, self._host)).dicts().first()
            return Registration(row["id"], added_to_cluster=False, frozen=_override(row, "frozen"))

        registered = self._store.write(write, label=f"register service {topic}", urgent=True)
        self._inserted_topics.add(topic)
        return registered

    def save_reports(self, reports: Sequence[ServiceReport]) -> None:
        """Write the heartbeat of all services of this host: one small write that goes before all others.

        A row that was deleted under its service comes back, enabled, and that is logged.

        Raises:
            StoreUnavailable: It cannot be written now.
        """

        def write() -> list[str]:
            missing = [report for report in reports if not self._update(report)]
            for report in missing:
                self._insert(report)
            return [report.topic for report in missing]

        missing = self._store.write(write, label="report state", urgent=True)
        gone = self._inserted_topics.intersection(missing)
        self._inserted_topics.update(report.topic for report in reports)
        for topic in sorted(gone):
            text = "the record of service %s on %s was missing and has been recreated"
            _log.warning(text, topic, self._host, extra=message_id("service-restored"))

    def list(self, down_times: Mapping[str, float] | float = DOWN_TIME) -> list[ServiceStatus]:
        """Return all services, in order of topic and host.

        Args:
            down_times: Seconds without a report after which a service counts as down: one for all, or by topic.
        """
        query: Any = ServiceRow.select().order_by(ServiceRow.topic, ServiceRow.host)
        rows = self._store.read(lambda: list(query.dicts()))
        return [self._to_status(row, _down_time_for_topic(down_times, row["topic"])) for row in rows]

    def get(self, topic: str, host: str = "", down_time: float = DOWN_TIME) -> ServiceStatus:
        """Return one service; `host` is this one by default.

        Raises:
            NotFound: There is no such row.
        """
        host = host or self._host
        query: Any = ServiceRow.select().where(self._row_filter(topic, host))
        rows = self._store.read(lambda: list(query.dicts()))
        if not rows:
            raise _not_found(topic, host)
        return self._to_status(rows[0], down_time)

    def set_enabled(self, topic: str, host: str, enabled: bool, reason: str = "", requester: str = "") -> None:
        """Say whether a service is to be given new work; the operator override, with who says it and why.

        Raises:
            NotFound: There is no such row.
        """
        values = {
            "enabled": enabled,
            "disabled_reason": "" if enabled else reason,
            "disabled_by": "" if enabled else requester,
            "enabled_at": self._clock.wall(),
        }

        def write() -> None:
            if not ServiceRow.update(values).where(self._row_filter(topic, host)).execute():
                raise _not_found(topic, host)

        self._store.write(write, label=f"enable or disable {topic}")

    def set_override(self, kind: OverrideKind, topic: str, host: str, override: OperatorOverride | None) -> None:
        """Freeze a service or force it down; with None, undo that.

        Args:
            kind: `frozen` or `forced_down`.
            topic: The service.
            host: Its host.
            override: Who, why and since when.

        Raises:
            NotFound: There is no such row.
            StoreUnavailable: It cannot be written now.
        """
        values = override_columns(kind, override)

        def write() -> None:
            if not ServiceRow.update(values).where(self._row_filter(topic, host)).execute():
                raise _not_found(topic, host)

        self._store.write(write, label=f"set {kind} of {topic}")

    def forced_down(self) -> dict[tuple[str, str], OperatorOverride]:
        """Return the services that were forced down, by topic and host."""
        query: Any = ServiceRow.select().where(ServiceRow.forced_down_at > 0)
        rows = self._store.read(lambda: list(query.dicts()))
        found = {(row["topic"], row["host"]): _override(row, "forced_down") for row in rows}
        return {key: override for key, override in found.items() if override is not None}

    def mark_gone(self, topics: Collection[str], hosts: Collection[str], left_out: Collection[str] = ()) -> None:
        """Have the rows say so of what is gone: services this host does not have, and all of hosts that are no peers.

        A row of one that is there after all is right again with its next report.

        Args:
            topics: The services of this host.
            hosts: Its peers.
            left_out: Services of its configuration that are left out, because a plugin is broken or not loaded.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        mine = (ServiceRow.host == self._host) & ServiceRow.topic.not_in([*topics, *left_out])
        without_plugin = (ServiceRow.host == self._host) & ServiceRow.topic.in_(list(left_out))
        others = ServiceRow.host.not_in([self._host, *hosts])

        def write() -> None:
            mark_rows_gone(mine, "it is no longer in the configuration of this host", self._clock.wall())
            mark_rows_gone(
                without_plugin,
                "it is left out, as its plugin is broken or not loaded: see `ostler status`",
                self._clock.wall(),
            )
            mark_rows_gone(others, "its host is no longer a peer of this host", self._clock.wall())

        self._store.write(write, label="removed services")

    def prune_gone(self, max_age: float) -> Sequence[tuple[str, str]]:
        """Remove the rows of services that have been gone for long; return their topics and hosts.

        Args:
            max_age: For how many seconds, by a clock that does not follow one that was set forward.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        before = self._store.retention_clock.now() - max_age

        def write() -> Sequence[tuple[str, str]]:
            due = (ServiceRow.state == str(ServiceState.GONE)) & (ServiceRow.since < before)
            query: Any = ServiceRow.select(ServiceRow.topic, ServiceRow.host).where(due).order_by(ServiceRow.since)
            rows = list(query.tuples())
            total = ServiceRow.select().count()
            limit = self._store.retention_clock.removal_limit(
                "records of services that are gone", len(rows), total, before
            )
            for topic, host in rows[:limit]:
                self._delete_row(topic, host)
            return rows[:limit]

        return self._store.write(write, label="prune services that are gone")

    def _delete_row(self, topic: str, host: str) -> bool:
        CapabilityRow.delete().where((CapabilityRow.topic == topic) & (CapabilityRow.host == host)).execute()
        return bool(ServiceRow.delete().where(self._row_filter(topic, host)).execute())

    def delete(self, topic: str, host: str) -> None:
        """Remove the row of a service that is gone for good, and its capabilities; one that lives comes back.

        Raises:
            NotFound: There is no such row.
        """

        def write() -> None:
            if not self._delete_row(topic, host):
                raise _not_found(topic, host)

        self._store.write(write, label=f"delete the record of {topic}")

    def _update(self, report: ServiceReport) -> bool:
        values: dict[Any, Any] = {**self._column_values(report), ServiceRow.beat: ServiceRow.beat + 1}
        return bool(ServiceRow.update(values).where(self._row_filter(report.topic, self._host)).execute())

    def _insert(self, report: ServiceReport) -> None:
        values = {**self._column_values(report), **override_columns("frozen", report.frozen)}
        ServiceRow.insert(topic=report.topic, host=self._host, **values).execute()

    def _column_values(self, report: ServiceReport) -> dict[str, Any]:
        now = boot_stamp(self._clock)
        known = self._service_infos.get(report.topic, _ServiceInfo("", "", ""))
        return {
            "manager": known.manager,
            "rpc_version": known.rpc_version,
            "namespaces": known.namespaces,
            "state": str(report.state),
            "why": report.why,
            "since": report.since or now.wall,
            "boot_id": now.boot_id,
            "boot_time": now.boot_time,
            "reported_at": now.wall,
            "signs": msgspec.json.encode(report.signs).decode() if report.signs else "",
        }

    @staticmethod
    def _row_filter(topic: str, host: str) -> Any:
        return (ServiceRow.topic == topic) & (ServiceRow.host == host)

    def _age(self, row: Mapping[str, Any]) -> float:
        made = BootStamp(row["boot_id"], row["boot_time"], row["reported_at"])
        return self._report_ages.age(row["id"], row["host"], made, row["beat"])

    def _to_status(self, row: Mapping[str, Any], down_time: float) -> ServiceStatus:
        age = min(self._age(row), INFINITE_AGE)
        state, forced = ServiceState(row["state"]), _override(row, "forced_down")
        return ServiceStatus(
            topic=row["topic"],
            host=row["host"],
            manager=row["manager"],
            state=state,
            why=row["why"],
            since=row["since"],
            up=is_up(state, age, down_time, forced_down=forced is not None),
            enabled=row["enabled"],
            disabled_reason=row["disabled_reason"],
            disabled_by=row["disabled_by"],
            enabled_at=row["enabled_at"],
            frozen=_override(row, "frozen"),
            forced_down=forced,
            age=age,
            down_time=down_time,
            rpc_version=row["rpc_version"],
            namespaces=decode_namespaces(row["namespaces"]),
            beat=row["beat"],
            last_report=row["reported_at"],
            here=row["host"] == self._host,
            signs=_decode_signs(row["signs"]),
        )


def _decode_signs(text: str) -> list[ServiceSign]:
    try:
        return msgspec.json.decode(text, type=list[ServiceSign]) if text else []
    except msgspec.MsgspecError:  # damaged: the rest of the row is worth more
        return []


def override_columns(kind: OverrideKind, override: OperatorOverride | None) -> dict[str, Any]:
    """Return the values of the columns of an override."""
    set_to = override or OperatorOverride()
    # 0 says that it is not set: one that is set has a time above it, whatever the clock says.
    at = max(set_to.since, _FIRST_MOMENT) if override is not None else 0.0
    return {f"{kind}_at": at, f"{kind}_by": set_to.by, f"{kind}_reason": set_to.reason}


def _override(row: Mapping[str, Any], kind: OverrideKind) -> OperatorOverride | None:
    if not row[f"{kind}_at"]:
        return None
    return OperatorOverride(by=row[f"{kind}_by"], reason=row[f"{kind}_reason"], since=row[f"{kind}_at"])


def mark_rows_gone(which: Any, why: str, now: float) -> None:
    """Have rows say that their services are gone, since now; must run inside `store.write`."""
    values = {"state": str(ServiceState.GONE), "why": why, "since": now}
    ServiceRow.update(values).where(which & (ServiceRow.state != str(ServiceState.GONE))).execute()


def _down_time_for_topic(down_times: Mapping[str, float] | float, topic: str) -> float:
    return down_times.get(topic, DOWN_TIME) if isinstance(down_times, Mapping) else down_times


def _not_found(topic: str, host: str) -> NotFound:
    return NotFound(f"service {topic} not found on {host}", hint="see `ostler service list`", topic=topic, host=host)
