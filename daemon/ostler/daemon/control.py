"""What the daemon answers on the topic `ostler`: the far side of the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ostler import log
from ostler.bounds import NAME_LIMIT
from ostler.daemon.keeping import journal_page, journal_topics
from ostler.daemon.maintenance import Maintenance
from ostler.errors import Draining, InvalidInput, NotFound, check_length
from ostler.messaging import Context, exposed
from ostler.messaging.events.event import JournalPage, JournalTopic, Position
from ostler.messaging.rpc.core import FLAGS_OF_CAST, Ask
from ostler.types import (
    AuditEntry,
    CapabilityReport,
    DaemonStatus,
    HostIdentity,
    HostReport,
    Json,
    MethodDescription,
    OptionValue,
    PeriodicStatus,
    PluginStatus,
    ServiceStatus,
    Traffic,
    Upgrade,
    Verdict,
)

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon
    from ostler.daemon.messages import Messages
    from ostler.daemon.service_control import ServiceControl
    from ostler.messaging import Dispatcher
    from ostler.service import Runtime
    from ostler.store import Store

_PIECE = 128 * 1024
"""Bytes of a backup in one item."""
_LONGEST_WAIT = 7 * 86400.0
"""Seconds that a drain may be made to wait."""
_LONGEST_FLUSH = 1.0
"""Seconds that a caller may wait for reports of what has just changed."""


class Control:
    """The daemon's own endpoint. All methods run on the loop; what takes long goes to the store's threads.

    Args:
        daemon: The daemon it speaks for.
        dispatcher: Knows what can be called.
    """

    rpc_version = "1.0"

    def __init__(self, daemon: Daemon, dispatcher: Dispatcher) -> None:
        self._daemon = daemon
        self._dispatcher = dispatcher
        self._maintenance = Maintenance()

    def _runtime(self) -> Runtime:
        if self._daemon.runtime is None:
            raise Draining("the daemon has no services yet", hint="see `ostler status` for what it waits for")
        return self._daemon.runtime

    def _services(self) -> ServiceControl:
        from ostler.daemon.service_control import ServiceControl

        return ServiceControl(self._daemon, self._runtime())

    def _store(self) -> Store:
        return self._runtime().store

    @exposed(role="viewer", changes=False)
    async def status(self, ctx: Context) -> DaemonStatus:
        """Return the daemon at one glance: itself, services, drivers, plugins, and what is not well."""
        return await self._daemon.status()

    @exposed(role="viewer", changes=False)
    async def host_report(self, ctx: Context, flush: float = 0.0) -> HostReport:
        """Return what other daemons are told of this host: its services, and what they offer.

        Args:
            ctx: The request.
            flush: Seconds to wait at most for what has changed on this host and is not reported yet; 1 at most.
        """
        self._heard(ctx)
        runtime = self._runtime()
        if flush > 0:
            await runtime.capability_reporter.flush(min(flush, _LONGEST_FLUSH))
        return await runtime.view.report()

    @exposed(role="viewer", changes=False)
    async def watch_host(self, ctx: Context) -> AsyncIterator[HostReport]:
        """Yield what other daemons are told of this host: now, and as soon as something has changed."""
        self._heard(ctx)
        async with aclosing(self._runtime().view.follow(ctx.host)) as reports:
            async for report in reports:
                yield report

    def _heard(self, ctx: Context) -> None:
        if self._daemon.messages is not None:
            self._daemon.messages.heard_from(ctx.host)

    @exposed(role="viewer", changes=False)
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text; proves that the socket is answered."""
        return text

    @exposed(role="viewer", changes=False)
    async def hello(
        self, ctx: Context, name: str, machine: str = "", boot: str = "", instance: str = ""
    ) -> HostIdentity:
        """Take note of the daemon that calls, and say who this one is; each link between hosts begins with it.

        Args:
            ctx: The request.
            name: The `host` of the daemon that calls.
            machine: The id of its machine, for Ostler alone.
            boot: The id of its boot.
            instance: Another one for each start.

        Raises:
            Conflict: It is not the host whose key it holds, or two daemons are that host.
        """
        _check_names(name=name, machine=machine, boot=boot, instance=instance)
        messages = self._daemon.messages
        assert messages is not None  # noqa: S101 - it brought this request
        return await messages.greet(ctx.peer, HostIdentity(name=name, machine=machine, boot=boot, instance=instance))

    @exposed(role="admin")
    async def reload(self, ctx: Context) -> Verdict:
        """Read, check and apply the configuration, as SIGHUP does; a bad one changes nothing and is an error."""
        return await self._daemon.reloader.reload(ctx.peer.name)

    @exposed(role="viewer", changes=False)
    async def service_list(self, ctx: Context) -> list[ServiceStatus]:
        """Return every service in the services table, those of other hosts included."""
        return await self._runtime().rows()

    @exposed(role="viewer", changes=False)
    async def service_show(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Return one service."""
        _check_names(topic=topic, on_host=on_host)
        return await self._services().show(topic, on_host)

    @exposed(role="operator")
    async def service_enable(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Let schedulers choose a service again; asked by an administrator, one that drains takes calls again too.

        Args:
            ctx: The request.
            topic: The service.
            on_host: The host that is to do it, this one when it is empty. As of all verbs here.
        """
        _check_names(topic=topic, on_host=on_host)
        return await self._services().enable(ctx, topic, on_host)

    @exposed(role="operator")
    async def service_disable(
        self, ctx: Context, topic: str, reason: str, on_host: str = "", asked_by: str = ""
    ) -> ServiceStatus:
        """Keep schedulers from choosing a service; it goes on with what it has, and answers.

        Args:
            ctx: The request.
            topic: The service.
            reason: Why; shown wherever the service is.
            on_host: See `service_enable`.
            asked_by: Who asked the host that passes this on. As of all verbs here.
        """
        _check_names(topic=topic, on_host=on_host)
        if not reason.strip():
            raise InvalidInput("a service is disabled with a reason", hint="say it with `--reason`")
        check_length("the reason", reason)
        return await self._services().disable(ctx, topic, on_host, reason, asked_by)

    @exposed(role="admin")
    async def service_drain(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> list[str]:
        """Have a service take no new work and wait for what is in flight; returns what was still running.

        `service_resume` undoes it.
        """
        _check_names(topic=topic, on_host=on_host)
        return await self._services().drain(ctx, topic, on_host, _seconds(wait), asked_by)

    @exposed(role="admin")
    async def service_resume(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Have a service that drains take work again."""
        _check_names(topic=topic, on_host=on_host)
        return await self._services().resume(ctx, topic, on_host)

    @exposed(role="admin")
    async def service_stop(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> list[str]:
        """Drain a service and take it down, the others go on; returns what hangs. It starts again with the daemon."""
        _check_names(topic=topic, on_host=on_host)
        return await self._services().stop(ctx, topic, on_host, _seconds(wait), asked_by)

    @exposed(role="admin")
    async def service_start(self, ctx: Context, topic: str, on_host: str = "") -> ServiceStatus:
        """Start a service that has stopped or failed, with the configuration that is in force."""
        _check_names(topic=topic, on_host=on_host)
        return await self._services().start(ctx, topic, on_host)

    @exposed(role="admin")
    async def service_restart(
        self, ctx: Context, topic: str, wait: float = 0.0, on_host: str = "", asked_by: str = ""
    ) -> ServiceStatus:
        """Drain a service, take it down and start it again, with the configuration that is in force."""
        _check_names(topic=topic, on_host=on_host)
        return await self._services().restart(ctx, topic, on_host, _seconds(wait), asked_by)

    @exposed(role="operator")
    async def service_forget(self, ctx: Context, topic: str, on_host: str = "") -> None:
        """Remove the record of a service that is gone for good: of a host that is no more, or out of the configuration.

        Raises:
            NotFound: There is no such record.
            Conflict: The service is there; it would be back with its next report, and enabled.
        """
        _check_names(topic=topic, on_host=on_host)
        await self._services().forget(ctx, topic, on_host)

    @exposed(role="viewer", changes=False)
    async def service_versions(self, ctx: Context, topic: str = "", major: int | None = None) -> list[Upgrade]:
        """Return which version of each topic's calls may be used now, and who holds it back.

        Args:
            ctx: The request.
            topic: One topic, or `topic.namespace`; all when it is empty.
            major: The major version that is asked about; by default that of the newest service.
        """
        _check_names(topic=topic)
        upgrades = self._runtime().upgrades
        return [await upgrades.aof(topic, major)] if topic else await upgrades.all()

    @exposed(role="viewer", changes=False)
    async def plugin_list(self, ctx: Context) -> list[PluginStatus]:
        """Return every plugin that was found, with its state and why."""
        return self._daemon.plugins.records()

    @exposed(role="viewer", changes=False)
    async def periodic_list(self, ctx: Context) -> list[PeriodicStatus]:
        """Return every periodic task."""
        return self._runtime().periodic.statuses()

    @exposed(role="operator")
    async def periodic_run(self, ctx: Context, service: str, task: str) -> PeriodicStatus:
        """Run a periodic task now."""
        _check_names(service=service, task=task)
        self._runtime().periodic.run_now(service, task)
        return self._periodic(service, task)

    @exposed(role="operator")
    async def periodic_pause(self, ctx: Context, service: str, task: str, paused: bool = True) -> PeriodicStatus:
        """Keep a periodic task from running, or let it run again."""
        _check_names(service=service, task=task)
        self._runtime().periodic.pause(service, task, paused)
        return self._periodic(service, task)

    def _periodic(self, service: str, task: str) -> PeriodicStatus:
        for row in self._runtime().periodic.statuses():
            if (row.service, row.task) == (service, task):
                return row
        raise NotFound(f"service {service} has no periodic task {task}", hint="see `ostler periodic list`")

    @exposed(role="operator", changes=False)
    async def config(self, ctx: Context) -> list[OptionValue]:
        """Return every option with the value that is in force, and where it comes from; secrets are masked."""
        return self._daemon.running_values()

    @exposed(role="operator", changes=False)
    async def log_levels(self, ctx: Context) -> dict[str, str]:
        """Return the levels of loggers that are in force."""
        return log.levels()

    @exposed(role="admin")
    async def log_level(self, ctx: Context, level: str = "", logger: str = "") -> dict[str, str]:
        """Set the level of a logger until the next reload (all of Ostler without a name); return what is in force."""
        _check_names(level=level, logger=logger)
        return log.set_level(level, logger) if level else log.levels()

    @exposed(role="operator", changes=False)
    async def dump(self, ctx: Context) -> dict[str, Any]:
        """Return threads, tasks, queues, services and the masked configuration."""
        return self._daemon.dump()

    @exposed(role="operator", changes=False)
    async def db_check(self, ctx: Context) -> list[str]:
        """Check the whole database and return what is wrong with it; an empty list when nothing is."""
        check = self._store().check
        return await self._maintenance.once("check the database", check, ctx.peer.account)

    @exposed(role="admin")
    async def db_backup(self, ctx: Context) -> AsyncIterator[bytes]:
        """Yield a consistent copy of the database in pieces; the caller writes it, with its own rights."""
        work = self._store().open_copy
        with await self._maintenance.run("back up the database", work, ctx.peer.account) as copy:
            while piece := copy.read(_PIECE):  # written a moment ago: it comes from memory
                yield piece

    @exposed(role="viewer", changes=False)
    async def describe(self, ctx: Context, topic: str, schema: bool = False) -> list[MethodDescription]:
        """Return the methods that can be called on a topic.

        Args:
            ctx: The request.
            topic: The topic; `ostler` is the daemon itself.
            schema: Whether the JSON Schemas of arguments and results are wanted too.
        """
        _check_names(topic=topic)
        router = self._messages().client.router
        if not ctx.peer.key and not router.here(Ask(topic, "describe", {})):
            return await router.describe(topic, schema=schema)
        if self._dispatcher.registry.is_described(topic, schema=schema):
            return self._dispatcher.registry.describe(topic, schema=schema)
        return await self._maintenance.once(
            f"describe {topic}", lambda: self._dispatcher.registry.describe(topic, schema=schema), ctx.peer.account
        )

    @exposed(role="viewer", changes=False)
    async def event_topics(self, ctx: Context) -> list[JournalTopic]:
        """Return the topics whose events are kept, each with its lowest and highest number."""
        return await journal_topics(self._store(), self._daemon.clock, self._daemon.host)

    @exposed(role="viewer", changes=False)
    async def events_since(self, ctx: Context, positions: list[Position], limit: int = 500) -> JournalPage:
        """Return the events of journaled topics after some numbers, oldest first.

        Args:
            ctx: The request.
            positions: For each topic the number after which to begin, with the epoch of the event that had it.
            limit: The most events at once, 1000 at most.
        """
        for position in positions:
            _check_names(topic=position.topic)
        return await journal_page(self._store(), self._daemon.clock, self._daemon.host, positions, limit)

    @exposed(role="viewer", changes=False)
    async def capabilities(self, ctx: Context, flush: float = 0.0) -> list[CapabilityReport]:
        """Return what services offer: those of this daemon as of now, those of peers as their daemons told it last.

        Args:
            ctx: The request.
            flush: Seconds to wait at most for what has changed and is not reported yet, here and on peers; 1 at most.
        """
        runtime = self._runtime()
        if flush > 0:
            await self._flush(runtime, min(flush, _LONGEST_FLUSH))
        return await runtime.view.capabilities()

    async def _flush(self, runtime: Runtime, seconds: float) -> None:
        messages = self._daemon.messages
        peers = messages.peers if messages is not None else None
        others = [peers.fleet.catch_up(seconds)] if peers is not None else []
        own = [runtime.capability_reporter.flush(seconds), runtime.reporter.settle(seconds)]
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
        auditor = self._daemon.auditor
        if auditor is None:
            raise Draining("the daemon has no database yet", hint="see `ostler status` for what it waits for")

        _check_names(who=who, method=method)

        def read() -> list[AuditEntry]:
            return auditor.records.list(who=who, method=method, since=since, failed=failed, limit=limit, after=after)

        return await auditor.read(read)

    @exposed(role="viewer", changes=False)
    async def traffic(self, ctx: Context) -> Traffic:
        """Return what was counted of every method since its service began; two answers make a rate."""
        from ostler.daemon.traffic import traffic_of

        return traffic_of(self._daemon)

    # Which of the arguments are secret is known once the other host has been asked: until then, all are.
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
    ) -> Json:
        """Call a method on another host, for whoever has the role that it asks for here as well.

        Requests over the daemon's socket that are for other hosts become requests to this method.

        Args:
            ctx: The request.
            on_host: The host; empty for one that has the service and takes the request.
            topic: The service there.
            method: Its method.
            arguments: The method's arguments.
            cast: Whether to return when the service there has accepted it.
            fanout: Whether all members are to run it, the one here too; returns how many have accepted it.
            lenient: Whether texts may stand for numbers, booleans and structures.
            version: The version that the service has to speak; empty for any.
            repeatable: Whether the request may come again under its id.
        """
        _check_names(on_host=on_host, topic=topic, method=method, version=version)
        ask = Ask(topic, method, arguments or {}, flags=FLAGS_OF_CAST if cast else 0, version=version)
        if fanout:
            return await self._messages().relay.fan_out(ctx, ask, lenient=lenient)
        result: Json = await self._messages().relay.ask(ctx, on_host, ask, lenient=lenient, repeatable=repeatable)
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
            on_host: The host; empty for one that has the service and takes the request.
            topic: The service there.
            method: Its method.
            arguments: The method's arguments.
            lenient: Whether texts may stand for numbers, booleans and structures.
            version: The version that the service has to speak; empty for any.
        """
        _check_names(on_host=on_host, topic=topic, method=method, version=version)
        ask = Ask(topic, method, arguments or {}, version=version)
        router = self._messages().client.router
        async with await router.relay_stream(ctx, on_host, ask, lenient=lenient) as stream:
            async for item in stream:
                yield item

    def _messages(self) -> Messages:
        messages = self._daemon.messages
        assert messages is not None  # noqa: S101 - it brought this request
        return messages

    @exposed(role="viewer", changes=False)
    async def wait_ready(self, ctx: Context) -> DaemonStatus:
        """Return when the start has come to its end; for scripts that start a daemon without systemd."""
        await asyncio.shield(self._daemon.started)
        return await self._daemon.status()


def _seconds(wait: float) -> float:
    """Return the seconds to wait, 0 for what the service says.

    Raises:
        InvalidInput: They are none.
    """
    if not 0.0 <= wait <= _LONGEST_WAIT:
        raise InvalidInput(f"`wait` is {wait:g}, and must be a number of seconds from 0 to {_LONGEST_WAIT:g}")
    return wait


def _check_names(**names: str) -> None:
    """Refuse names that are too long: they stand in errors, in the log, in what others are shown."""
    for argument, name in names.items():
        check_length(f"`{argument}`", name, NAME_LIMIT)
