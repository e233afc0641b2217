"""The RPC methods of the daemon on the topic `ostler`, which the command calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from ostler import log
from ostler.bounds import NAME_LIMIT
from ostler.daemon.control.driver_control import DriverControl
from ostler.daemon.control.health_report import HealthReport
from ostler.daemon.control.log_stream import follow_log
from ostler.daemon.control.maintenance_pool import MaintenancePool
from ostler.daemon.control.service_control import ServiceControl
from ostler.daemon.control.token_control import TokenControl
from ostler.daemon.control.traffic_metrics import collect_traffic
from ostler.errors import InvalidInput, check_length
from ostler.log.followers import Filter
from ostler.manager_types import EventHandlerStatus, FollowedRecords, LockStatus, LogLevel
from ostler.messaging import Context, exposed
from ostler.messaging.events.event import JournalPage, JournalPosition, JournalTopic
from ostler.messaging.wire.envelope import SUBMIT
from ostler.messaging.wire.request import CAST_FLAGS, CallRequest
from ostler.metrics.families import MetricFamily
from ostler.operations import OperationControl
from ostler.reload_types import ReloadPlan, ReloadResult
from ostler.service.event_journal import journal_page, journal_topics
from ostler.store import VacuumResult
from ostler.types import (
    AuditEntry,
    CallerIdentity,
    CapabilityReport,
    DaemonStatus,
    ForcedDownResult,
    HostIdentity,
    HostReport,
    Json,
    MethodDescription,
    OptionValue,
    PeriodicHistory,
    PeriodicStatus,
    PluginStatus,
    ServiceStatus,
    TrafficCounters,
    Upgrade,
)

if TYPE_CHECKING:
    from ostler.daemon.active_configuration import ActiveConfiguration
    from ostler.daemon.control.daemon_dump import DaemonDump
    from ostler.daemon.control.metrics.collector import MetricCollector
    from ostler.daemon.control.monitoring_sources import MonitoringSources
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.plugins import PluginHost

_BACKUP_CHUNK_SIZE = 128 * 1024
"""Bytes of a backup in one item."""
_MAX_DRAIN_WAIT = 7 * 86400.0
"""The most seconds that a caller may ask a drain to wait."""
_MAX_LEVEL_SECONDS = 7 * 86400.0
"""The most seconds after which a log level can end."""
_MAX_FLUSH_WAIT = 1.0
"""The most seconds that a caller may wait for reports of recent changes."""


class Reloads(Protocol):
    """Reloads the configuration; see `Reloader`."""

    async def reload(self, requester: str, *, keep_failed: bool = False) -> ReloadResult:
        """Reload for somebody, who is named."""
        ...

    async def plan(self) -> ReloadPlan:
        """Return what a reload would do."""
        ...


class ControlEndpoint:
    """The daemon's own endpoint. All methods run on the loop; long work runs on the store's threads.

    Args:
        parts: The parts of the daemon.
        plugins: Its plugins.
        active: Its configuration.
        reloader: Reloads it, or says what a reload would do.
        make_dump: Returns what gathers what it is doing right now.
        console: The methods of `ostler console`; None when it is off.
        start_finished: Done when the start has finished; raises when it has failed.
        monitoring: What status, metrics and health are read from, apart from the parts.
    """

    rpc_version = "1.0"

    def __init__(
        self,
        parts: DaemonParts,
        *,
        plugins: PluginHost,
        active: ActiveConfiguration,
        reloader: Reloads,
        make_dump: Callable[[], DaemonDump],
        console: object | None = None,
        start_finished: asyncio.Future[DaemonParts],
        monitoring: MonitoringSources,
    ) -> None:
        self._parts = parts
        self._store, self._messaging, self._audit_service, self._runtime = parts
        self._monitoring = monitoring
        self._metric_collector: MetricCollector | None = None
        self._dispatcher = self._messaging.dispatcher
        self._status = monitoring.status
        self._plugins = plugins
        self._active = active
        self._reloader = reloader
        self._make_dump = make_dump
        self._start_finished = start_finished
        self._service_control = ServiceControl(self._runtime, self._messaging, active)
        self._maintenance_pool = MaintenancePool()
        self.namespaces = {
            "operation": OperationControl(self._runtime.operations, self._dispatcher.registry),
            "driver": DriverControl(self._runtime),
            "token": TokenControl(self._messaging, self._store),
        }
        if console is not None:
            self.namespaces["console"] = console

    @exposed(role="viewer", changes=False)
    async def status(self, ctx: Context) -> DaemonStatus:
        """Return a summary of the daemon: itself, services, drivers, plugins, and problems."""
        return await self._status.status()

    @exposed(role="viewer", changes=False)
    async def host_report(self, ctx: Context, flush: float = 0.0) -> HostReport:
        """Return the report of this host for other daemons: its services, and what they offer.

        Args:
            ctx: The request.
            flush: Seconds to wait for changes on this host that are not reported yet; 1 at most.
        """
        self._on_peer_call(ctx)
        if flush > 0:
            await self._runtime.capability_reporter.flush(min(flush, _MAX_FLUSH_WAIT))
        return await self._runtime.host_view.report()

    @exposed(role="viewer", changes=False)
    async def watch_host(self, ctx: Context) -> AsyncIterator[HostReport]:
        """Yield the report of this host for other daemons: now, and as soon as something has changed."""
        self._on_peer_call(ctx)
        async with aclosing(self._runtime.host_view.watch(ctx.host)) as reports:
            async for report in reports:
                yield report

    def _on_peer_call(self, ctx: Context) -> None:
        self._messaging.on_peer_call(ctx.host)

    @exposed(role="viewer", changes=False)
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text; proves that requests are answered."""
        return text

    @exposed(role="viewer", changes=False)
    async def whoami(self, ctx: Context) -> CallerIdentity:
        """Return who the caller is for the daemon, and its role."""
        peer = ctx.peer
        return CallerIdentity(
            name=peer.name,
            role=str(ctx.role),
            uid=peer.uid,
            gid=peer.gid,
            key=peer.key,
            host=ctx.host,
            principal=peer.principal,
        )

    @exposed(role="viewer", changes=False)
    async def hello(
        self, ctx: Context, name: str, machine: str = "", boot: str = "", instance: str = ""
    ) -> HostIdentity:
        """Record the calling daemon, and return the identity of this one; each link between hosts begins with it.

        Args:
            ctx: The request.
            name: The `host` of the daemon that calls.
            machine: The id of its machine, for Ostler alone.
            boot: The id of its boot.
            instance: Another one for each start.

        Raises:
            Conflict: It is not the host that its key belongs to, or two daemons claim to be that host.
        """
        _check_name_lengths(name=name, machine=machine, boot=boot, instance=instance)
        return await self._messaging.exchange_identity(
            ctx.peer, HostIdentity(name=name, machine=machine, boot=boot, instance=instance)
        )

    @exposed(role="admin")
    async def reload(self, ctx: Context, keep_failed: bool = False) -> ReloadResult:
        """Read, check and apply the configuration, as SIGHUP does; a bad one changes nothing and is an error.

        Args:
            ctx: The request.
            keep_failed: Whether drivers that do not work with what is new keep it and are tried again. Otherwise the
                whole reload is undone when one of them fails.
        """
        return await self._reloader.reload(ctx.peer.name, keep_failed=keep_failed)

    @exposed(role="admin", changes=False)
    async def reload_plan(self, ctx: Context) -> ReloadPlan:
        """Read and check the configuration, and return what `reload` would do with it now; nothing is changed."""
        return await self._reloader.plan()

    @exposed(role="viewer", changes=False)
    async def service_list(self, ctx: Context) -> list[ServiceStatus]:
        """Return every service in the services table, those of other hosts included."""
        return await self._runtime.rows()

    @exposed(role="viewer", changes=False)
    async def service_show(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Return one service, with the causes for which it is not up and well."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.explain(topic, on_host)

    @exposed(role="operator")
    async def service_enable(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Let schedulers choose a service again; asked by an administrator, one that drains takes calls again too.

        Args:
            ctx: The request.
            topic: The service.
            on_host: The host that executes it; empty for this one. The same holds for all operations here.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.enable(ctx, topic, on_host)

    @exposed(role="operator")
    async def service_disable(
        self, ctx: Context, topic: str, reason: str, on_host: str = "", asked_by: str = ""
    ) -> ServiceStatus:
        """Keep schedulers from choosing a service; it continues its work, and answers calls.

        Args:
            ctx: The request.
            topic: The service.
            reason: Why; shown wherever the service is.
            on_host: See `service_enable`.
            asked_by: Who asked the host that forwards the request. The same holds for all operations here.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        _check_reason(reason, "disabled")
        return await self._service_control.disable(ctx, topic, on_host, reason, asked_by)

    @exposed(role="admin")
    async def service_drain(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> list[str]:
        """Have a service take no new work, and wait for work in progress; returns what was still running.

        `service_resume` undoes it.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.drain(ctx, topic, on_host, _wait_seconds(wait), asked_by)

    @exposed(role="admin")
    async def service_resume(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Have a service that drains take work again."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.resume(ctx, topic, on_host)

    @exposed(role="admin")
    async def service_freeze(
        self, ctx: Context, topic: str, reason: str, on_host: str = "", asked_by: str = ""
    ) -> ServiceStatus:
        """Have a service take no new work and finish what it has, until it is thawed; kept over restarts.

        Methods that change nothing are served, periodic tasks run, and queued operations wait.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        _check_reason(reason, "frozen")
        return await self._service_control.freeze(ctx, topic, on_host, reason, asked_by)

    @exposed(role="admin")
    async def service_thaw(self, ctx: Context, topic: str, on_host: str = "", asked_by: str = "") -> ServiceStatus:
        """Have a frozen service take work again."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.thaw(ctx, topic, on_host, asked_by)

    @exposed(role="operator")
    async def service_force_down(
        self,
        ctx: Context,
        topic: str,
        on_host: str,
        reason: str = "",
        undo: bool = False,
        asked_by: str = "",
        spread: bool = True,
    ) -> ForcedDownResult:
        """Take a service of another host as down, whatever it says itself; or undo that.

        Args:
            ctx: The request.
            topic: The service.
            on_host: Its host, which is not asked.
            reason: Why; required unless it is undone.
            undo: Whether its own word counts again.
            asked_by: See `service_disable`.
            spread: Whether the other hosts are told as well.

        Raises:
            Conflict: It is a service of this host.
            NotFound: There is no record of it.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        if not undo:
            _check_reason(reason, "forced down")
        return await self._service_control.force_down(ctx, topic, on_host, reason, asked_by, undo=undo, spread=spread)

    @exposed(role="admin")
    async def service_stop(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> list[str]:
        """Drain and stop a service, the others continue; returns what hangs. It starts again with the daemon."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.stop(ctx, topic, on_host, _wait_seconds(wait), asked_by)

    @exposed(role="admin")
    async def service_start(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Start a service that has stopped or failed, with the configuration in effect."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.start(ctx, topic, on_host)

    @exposed(role="admin")
    async def service_restart(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> ServiceStatus:
        """Drain and stop a service, and start it again with the configuration in effect."""
        _check_name_lengths(topic=topic, on_host=on_host)
        return await self._service_control.restart(ctx, topic, on_host, _wait_seconds(wait), asked_by)

    @exposed(role="operator")
    async def service_delete(self, ctx: Context, topic: str, on_host: str = "") -> None:
        """Remove the record of a service that was removed: from its host's configuration, or together with its host.

        Raises:
            NotFound: There is no such record.
            Conflict: The service exists; its next report would create the record again, enabled.
        """
        _check_name_lengths(topic=topic, on_host=on_host)
        await self._service_control.delete(ctx, topic, on_host)

    @exposed(role="viewer", changes=False)
    async def service_versions(self, ctx: Context, topic: str = "", major: int | None = None) -> list[Upgrade]:
        """Return which version of each topic's calls may be used now, and which members hold it back.

        Args:
            ctx: The request.
            topic: One topic, or `topic.namespace`; all when it is empty.
            major: The major version; by default that of the newest service.
        """
        _check_name_lengths(topic=topic)
        upgrades = self._runtime.upgrades
        return [await upgrades.aget_upgrade(topic, major)] if topic else await upgrades.list_upgrades()

    @exposed(role="viewer", changes=False)
    async def plugin_list(self, ctx: Context) -> list[PluginStatus]:
        """Return every plugin that was found, with its state and why."""
        return self._plugins.statuses()

    @exposed(role="viewer", changes=False)
    async def event_handlers(self, ctx: Context) -> list[EventHandlerStatus]:
        """Return every event handler."""
        return self._runtime.event_handlers()

    @exposed(role="viewer", changes=False)
    async def lock_list(self, ctx: Context, service: str = "") -> list[LockStatus]:
        """Return who holds locks and who waits for them."""
        _check_name_lengths(service=service)
        return await self._runtime.locks.list(service)

    @exposed(role="viewer", changes=False)
    async def periodic_list(self, ctx: Context) -> list[PeriodicStatus]:
        """Return every periodic task."""
        return self._runtime.periodic_scheduler.statuses()

    @exposed(role="operator")
    async def periodic_run(self, ctx: Context, service: str, task: str) -> PeriodicStatus:
        """Run a periodic task now."""
        _check_name_lengths(service=service, task=task)
        self._runtime.periodic_scheduler.run_now(service, task)
        return self._runtime.periodic_scheduler.status(service, task)

    @exposed(role="operator")
    async def periodic_pause(self, ctx: Context, service: str, task: str, reason: str = "") -> PeriodicStatus:
        """Keep a periodic task from running until it is resumed, also over restarts.

        Args:
            ctx: The request.
            service: The topic of the service.
            task: The name of the task.
            reason: Why; shown wherever the task is.
        """
        _check_name_lengths(service=service, task=task)
        check_length("the reason", reason)
        return await self._runtime.periodic_saver.pause(service, task, ctx.peer.name, reason)

    @exposed(role="operator")
    async def periodic_resume(self, ctx: Context, service: str, task: str) -> PeriodicStatus:
        """Let a paused periodic task run again, at its next regular time."""
        _check_name_lengths(service=service, task=task)
        return await self._runtime.periodic_saver.resume(service, task)

    @exposed(role="viewer", changes=False)
    async def periodic_show(self, ctx: Context, service: str, task: str) -> PeriodicHistory:
        """Return a periodic task with its last runs."""
        _check_name_lengths(service=service, task=task)
        return await self._runtime.periodic_saver.history(service, task)

    @exposed(role="operator", changes=False)
    async def config(self, ctx: Context) -> list[OptionValue]:
        """Return every option with the value in effect, and where it comes from; secrets are masked."""
        return self._active.effective_values(self._runtime.group)

    @exposed(role="operator", changes=False)
    async def log_levels(self, ctx: Context) -> list[LogLevel]:
        """Return the levels of loggers that are in effect."""
        return log.effective_levels()

    @exposed(role="admin")
    async def log_level(self, ctx: Context, level: str = "", logger: str = "", seconds: float = 0.0) -> list[LogLevel]:
        """Set the level of a logger (all of Ostler without a name); return what is in effect.

        Args:
            ctx: The request.
            level: The level, or `inherit` for a logger that is to follow the one above it; empty to set none.
            logger: The logger, and those below it.
            seconds: After how long the level of before is in effect again, also over reloads; 0 for the next reload.
        """
        _check_name_lengths(level=level, logger=logger)
        if not 0.0 <= seconds <= _MAX_LEVEL_SECONDS:
            raise InvalidInput(f"`seconds` is {seconds:g}; it must be a number from 0 to {_MAX_LEVEL_SECONDS:g}")
        return log.set_level(level, logger, seconds) if level else log.effective_levels()

    @exposed(role="operator", changes=False)
    async def log_follow(
        self, ctx: Context, level: str = "", logger: str = "", service: str = "", request: str = ""
    ) -> AsyncIterator[FollowedRecords]:
        """Yield records as they are logged, an empty batch first; the log itself does not change.

        Args:
            ctx: The request.
            level: The least level, also below that of the log; empty for what the log has.
            logger: Only this logger and those below it.
            service: Only records of this service.
            request: Only records of the request with this id.

        Raises:
            Busy: Too many clients follow already.
        """
        _check_name_lengths(level=level, logger=logger, service=service, request=request)
        number = log.parse_level(level) if level else 0
        async with aclosing(follow_log(Filter(number, logger, service, request))) as batches:
            async for batch in batches:
                yield batch

    @exposed(role="operator", changes=False)
    async def dump(self, ctx: Context) -> dict[str, Any]:
        """Return threads, tasks, requests, pools, sockets, timers, services, versions, the masked configuration."""
        account = ctx.peer.account
        return await self._make_dump().collect(lambda work: self._maintenance_pool.run("dump", work, account))

    @exposed(role="operator", changes=False)
    async def db_check(self, ctx: Context) -> list[str]:
        """Check the whole database and return what is wrong with it; an empty list when nothing is."""
        check = self._store.check
        return await self._maintenance_pool.run_shared("check the database", check, ctx.peer.account)

    @exposed(role="admin")
    async def db_backup(self, ctx: Context) -> AsyncIterator[bytes]:
        """Yield a consistent copy of the database in pieces; the caller writes it, with its own rights."""
        work = self._store.open_copy
        with await self._maintenance_pool.run("back up the database", work, ctx.peer.account) as copy:
            while piece := copy.read(_BACKUP_CHUNK_SIZE):  # written a moment ago: it comes from memory
                yield piece

    @exposed(role="admin")
    async def db_vacuum(self, ctx: Context) -> VacuumResult:
        """Give the room of removed rows back to the file system; nothing can be written meanwhile."""
        return await self._maintenance_pool.run_shared("vacuum the database", self._store.vacuum, ctx.peer.account)

    @exposed(role="viewer", changes=False)
    async def describe(self, ctx: Context, topic: str, schema: bool = False) -> list[MethodDescription]:
        """Return the methods that can be called on a topic.

        Args:
            ctx: The request.
            topic: The topic; `ostler` is the daemon itself.
            schema: Whether the JSON Schemas of arguments and results are wanted too.
        """
        _check_name_lengths(topic=topic)
        router = self._messaging.router
        if not ctx.peer.key and not router.is_local(CallRequest(topic, "describe", {})):
            return await router.describe(topic, schema=schema)
        if self._dispatcher.registry.is_description_cached(topic, schema=schema):
            return self._dispatcher.registry.describe(topic, schema=schema)
        return await self._maintenance_pool.run_shared(
            f"describe {topic}", lambda: self._dispatcher.registry.describe(topic, schema=schema), ctx.peer.account
        )

    @exposed(role="viewer", changes=False)
    async def event_topics(self, ctx: Context) -> list[JournalTopic]:
        """Return the topics whose events are kept, each with its lowest and highest number."""
        return await journal_topics(self._store, self._dispatcher.clock, self._dispatcher.host)

    @exposed(role="viewer", changes=False)
    async def events_since(self, ctx: Context, positions: list[JournalPosition], limit: int = 500) -> JournalPage:
        """Return the events of journaled topics after some numbers, oldest first.

        Args:
            ctx: The request.
            positions: For each topic the number after which to begin, with the epoch of the event that had it.
            limit: The most events at once, 1000 at most.
        """
        for position in positions:
            _check_name_lengths(topic=position.topic)
        return await journal_page(self._store, self._dispatcher.clock, self._dispatcher.host, positions, limit)

    @exposed(role="viewer", changes=False)
    async def capabilities(self, ctx: Context, flush: float = 0.0) -> list[CapabilityReport]:
        """Return what services offer: those of this daemon as of now, those of peers as their daemons told it last.

        Args:
            ctx: The request.
            flush: Seconds to wait at most for what has changed and is not reported yet, here and on peers; 1 at most.
        """
        if flush > 0:
            await self._flush(min(flush, _MAX_FLUSH_WAIT))
        return await self._runtime.host_view.capabilities()

    async def _flush(self, seconds: float) -> None:
        runtime, peers = self._runtime, self._messaging.peer_links
        others = [peers.peers.flush_reports(seconds)] if peers is not None else []
        own = [runtime.capability_reporter.flush(seconds), runtime.heartbeat_reporter.wait_for_checks(seconds)]
        await asyncio.gather(*own, *others)

    @exposed(role="admin", changes=False)
    async def audit(
        self,
        ctx: Context,
        who: str = "",
        method: str = "",
        since: float = 0.0,
        failed: bool = False,
        limit: int = 100,
        after: int = 0,
    ) -> list[AuditEntry]:
        """Return who did what, the newest entries that fit, oldest first."""
        _check_name_lengths(who=who, method=method)

        def read() -> list[AuditEntry]:
            return self._audit_service.records.list(
                who=who, method=method, since=since, failed=failed, limit=limit, after=after
            )

        return await self._audit_service.read_flushed(read)

    @exposed(role="viewer", changes=False)
    async def traffic(self, ctx: Context) -> TrafficCounters:
        """Return what was counted of every method since its service began; two answers make a rate."""
        return collect_traffic(self._messaging)

    @exposed(role="viewer", changes=False)
    async def health(self, ctx: Context) -> HealthReport:
        """Return whether the daemon lives, has started and can work, and each of its services."""
        return self._monitoring.health()

    @exposed(role="viewer", changes=False)
    async def metrics(self, ctx: Context) -> list[MetricFamily]:
        """Return all metrics with their values now: of the daemon, and of managers and drivers."""
        return await self._get_metric_collector().collect()

    def _get_metric_collector(self) -> MetricCollector:
        if self._metric_collector is None:
            from ostler.daemon.control.metrics.collector import MetricCollector  # 3 ms: only when asked for

            self._metric_collector = MetricCollector(self._parts, self._monitoring)
        return self._metric_collector

    # Until the other host has answered it is not known which arguments are secret: all are treated as such.
    @exposed(role="viewer", secret=["arguments"])
    async def relay(  # noqa: PLR0913 - each is a word of its own
        self,
        ctx: Context,
        on_host: str,
        topic: str,
        method: str,
        arguments: dict[str, Json] | None = None,
        cast: bool = False,
        *,
        fanout: bool = False,
        lenient: bool = True,
        version: str = "",
        repeatable: bool = False,
        submit: bool = False,
        time_limit: float | None = None,
    ) -> Json:
        """Call a method on another host; the caller needs the role for that method on this host as well.

        Requests for other hosts over the daemon's socket become requests to this method.

        Args:
            ctx: The request.
            on_host: The host; empty for any host that has the service and accepts the request.
            topic: The service there.
            method: Its method.
            arguments: The method's arguments.
            cast: Whether to return when the service there has accepted it.
            fanout: Whether all members run it, including the one on this host; returns how many accepted it.
            lenient: Whether strings are accepted for numbers, booleans and structures.
            version: The version that the service must implement; empty for any.
            repeatable: Whether the request may be retried under its id.
            submit: Whether it is stored as an operation there; returns its status.
            time_limit: Seconds in which that operation must end.
        """
        _check_name_lengths(on_host=on_host, topic=topic, method=method, version=version)
        flags = CAST_FLAGS if cast else SUBMIT if submit else 0
        ask = CallRequest(topic, method, arguments or {}, flags=flags, version=version, time_limit=time_limit)
        if fanout:
            return await self._messaging.relay.fan_out(ctx, ask, lenient=lenient)
        result: Json = await self._messaging.relay.send_request(
            ctx, on_host, ask, lenient=lenient, is_retryable=repeatable
        )
        return result

    @exposed(role="viewer", secret=["arguments"])
    async def relay_stream(
        self,
        ctx: Context,
        on_host: str,
        topic: str,
        method: str,
        arguments: dict[str, Json] | None = None,
        *,
        lenient: bool = True,
        version: str = "",
    ) -> AsyncIterator[Json]:
        """Yield what a method on another host yields; see `relay`.

        Args:
            ctx: The request.
            on_host: The host; empty for any host that has the service and accepts the request.
            topic: The service there.
            method: Its method.
            arguments: The method's arguments.
            lenient: Whether strings are accepted for numbers, booleans and structures.
            version: The version that the service must implement; empty for any.
        """
        _check_name_lengths(on_host=on_host, topic=topic, method=method, version=version)
        ask = CallRequest(topic, method, arguments or {}, version=version)
        router = self._messaging.router
        async with await router.relay_stream(ctx, on_host, ask, lenient=lenient) as stream:
            async for item in stream:
                yield item

    @exposed(role="viewer", changes=False)
    async def wait_ready(self, ctx: Context) -> DaemonStatus:
        """Return when the start has finished; for scripts that start a daemon without systemd."""
        await asyncio.shield(self._start_finished)
        return await self._status.status()


def _wait_seconds(wait: float) -> float:
    """Return the seconds to wait, 0 for the service's `drain_timeout`.

    Raises:
        InvalidInput: They are not valid.
    """
    if not 0.0 <= wait <= _MAX_DRAIN_WAIT:
        raise InvalidInput(f"`wait` is {wait:g}; it must be a number of seconds from 0 to {_MAX_DRAIN_WAIT:g}")
    return wait


def _check_reason(reason: str, what: str) -> None:
    if not reason.strip():
        raise InvalidInput(f"a service cannot be {what} without a reason", hint="give one with `--reason`")
    check_length("the reason", reason)


def _check_name_lengths(**names: str) -> None:
    """Refuse names that are too long: they appear in errors, in the log, and in what others see."""
    for argument, name in names.items():
        check_length(f"`{argument}`", name, NAME_LIMIT)
