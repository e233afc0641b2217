"""Operations on services, of this host or of another: the subcommands of `ostler service`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ostler.bounds import NAME_LIMIT
from ostler.errors import Conflict, DaemonNotRunning, NotFound, OstlerError, check_length, error_line
from ostler.messaging.wire.request import CallRequest
from ostler.types import CONTROL_TOPIC, ForcedDownResult, Json, OperatorOverride, Role, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.config import OptionsModel
    from ostler.daemon.active_configuration import ActiveConfiguration
    from ostler.daemon.connectivity.messaging_stack import MessagingStack
    from ostler.messaging import Context
    from ostler.service import Runtime

T = TypeVar("T")


class ServiceControl:
    """Executes the operator's requests for a service. On the loop.

    A request for a service of another host is executed by that host: it is called on its topic `ostler`, as this host
    and with the roles that this host has there, and its answer is recorded here at once. An unreachable host is an
    error: nothing is written here that the host itself does not know.

    Args:
        runtime: The services of this host.
        messaging: The links to other hosts.
        active: The configuration in effect.
    """

    def __init__(self, runtime: Runtime, messaging: MessagingStack, active: ActiveConfiguration) -> None:
        self._runtime = runtime
        self._messaging = messaging
        self._active = active

    async def show(self, topic: str, on_host: str) -> ServiceStatus:
        """Return one service of the table.

        Raises:
            NotFound: There is no such service.
        """
        wanted = on_host or self._runtime.host
        for row in await self._runtime.rows():
            if (row.topic, row.host) == (topic, wanted):
                return row
        raise NotFound(f"service {topic} not found on {wanted}", hint="see `ostler service list`", topic=topic)

    async def explain(self, topic: str, on_host: str) -> ServiceStatus:
        """Return one service of the table, with the causes for which it is not up and well.

        Raises:
            NotFound: There is no such service.
        """
        disabled = _disabled_topics(self._active.options.services)
        try:
            row = await self.show(topic, on_host)
        except NotFound:
            if topic not in disabled or self._is_remote(on_host):
                raise
            text = f"service {topic} is not started on {self._runtime.host}: its configuration has `enabled = false`"
            hint = f"set `enabled = true` in [services.{topic}], then `ostler reload`"
            raise NotFound(text, hint=hint, topic=topic) from None
        return await self._runtime.explain(row, disabled)

    async def enable(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Have a service take new work again, after it was disabled; for an administrator after a drain as well."""
        if self._is_remote(on_host):
            return await self._call_remote(ctx, on_host, "service_enable", topic)
        await self._set_enabled(topic, enabled=True, who=ctx.peer.name)
        service = self._runtime.group.services.get(topic)
        if service is not None and service.is_draining and ctx.role is Role.ADMIN:  # draining is for administrators
            self._runtime.service_actions.resume(topic)
        return await self.show(topic, "")

    async def disable(self, ctx: Context, topic: str, on_host: str, reason: str, asked_by: str) -> ServiceStatus:
        """Keep schedulers from giving new work to a service."""
        if self._is_remote(on_host):
            asked_by = self._requester(ctx)
            return await self._call_remote(ctx, on_host, "service_disable", topic, reason=reason, asked_by=asked_by)
        await self._set_enabled(topic, enabled=False, reason=reason, who=_requester_name(ctx, asked_by))
        return await self.show(topic, "")

    async def _set_enabled(self, topic: str, *, enabled: bool, reason: str = "", who: str = "") -> None:
        host, records = self._runtime.host, self._runtime.service_records
        row = await self.show(topic, "")
        self._raise_if_gone(row)
        await self._runtime.store.awrite(
            lambda: records.set_enabled(topic, host, enabled=enabled, reason=reason, requester=who),
            label="service enable" if enabled else "service disable",
        )
        if row.enabled is not enabled:
            self._runtime.state_notifier.notify_operator(topic, "enabled" if enabled else "disabled", who, reason)
        self._runtime.upgrades.invalidate()
        self._runtime.host_view.on_change()
        self._runtime.capability_reporter.trigger(topic)

    @staticmethod
    def _raise_if_gone(row: ServiceStatus) -> None:
        if row.state is ServiceState.GONE:
            what = f"service {row.topic} on {row.host} is gone: {row.why}"
            raise NotFound(what, hint=_DELETE_HINT.format(row.topic), topic=row.topic)

    async def freeze(self, ctx: Context, topic: str, on_host: str, reason: str, asked_by: str) -> ServiceStatus:
        """Have a service take no new work and finish what it has, over restarts too."""
        if self._is_remote(on_host):
            asked_by = self._requester(ctx)
            return await self._call_remote(ctx, on_host, "service_freeze", topic, reason=reason, asked_by=asked_by)
        who = _requester_name(ctx, asked_by)
        self._raise_if_gone(await self.show(topic, ""))
        await self._runtime.set_frozen(topic, self._override(who, reason))
        self._runtime.state_notifier.notify_operator(topic, "frozen", who, reason)
        return await self.show(topic, "")

    async def thaw(self, ctx: Context, topic: str, on_host: str, asked_by: str) -> ServiceStatus:
        """Have a frozen service take work again; no effect on one that is not frozen."""
        if self._is_remote(on_host):
            return await self._call_remote(ctx, on_host, "service_thaw", topic, asked_by=self._requester(ctx))
        row = await self.show(topic, "")
        self._raise_if_gone(row)
        if row.frozen is not None:
            await self._runtime.set_frozen(topic, None)
            self._runtime.state_notifier.notify_operator(topic, "thawed", _requester_name(ctx, asked_by))
        return await self.show(topic, "")

    async def force_down(
        self, ctx: Context, topic: str, on_host: str, reason: str, asked_by: str, *, undo: bool, spread: bool
    ) -> ForcedDownResult:
        """Record here, and on all hosts that can be reached, that a service is down whatever it says itself.

        Raises:
            Conflict: It is on this host, which is certainly not down.
            NotFound: There is no record of it.
        """
        if not self._is_remote(on_host):
            raise Conflict(
                f"service {topic} on {self._runtime.host} is here and cannot be forced down",
                hint=f"`ostler service freeze {topic}` has it take no new work, `ostler service stop` stops it",
                topic=topic,
            )
        who = _requester_name(ctx, asked_by)
        row = await self.show(topic, on_host)
        if (row.forced_down is None) is not undo:
            await self._runtime.set_forced_down(topic, on_host, None if undo else self._override(who, reason))
            action = "forced_up" if undo else "forced_down"
            why = f"its word of {on_host}{f': {reason}' if reason else ''}"
            self._runtime.state_notifier.notify_operator(topic, action, who, why)
        told, missed = await self._spread(ctx, topic, on_host, reason, undo) if spread else ([], [])
        return ForcedDownResult(service=await self.show(topic, on_host), told=told, missed=missed)

    async def _spread(
        self, ctx: Context, topic: str, on_host: str, reason: str, undo: bool
    ) -> tuple[list[str], list[str]]:
        """Tell all other hosts of a word about one of them; return which know it now, and why others do not."""
        links = self._messaging.peer_links
        hosts = [host for host in sorted(links.peers.peers) if host != on_host] if links is not None else []
        arguments: dict[str, Json] = {
            "topic": topic, "on_host": on_host, "reason": reason, "undo": undo, "asked_by": self._requester(ctx),
            "spread": False,
        }  # fmt: skip
        ask = CallRequest(CONTROL_TOPIC, "service_force_down", arguments)
        found = await asyncio.gather(
            *(self._messaging.router.relay(ctx, host, ask) for host in hosts), return_exceptions=True
        )
        missed = []
        for host, result in zip(hosts, found, strict=True):
            if isinstance(result, OstlerError):
                missed.append(f"{host}: {error_line(result)}")
            elif isinstance(result, BaseException):
                raise result
        return [host for host, result in zip(hosts, found, strict=True) if not isinstance(result, Exception)], missed

    def _override(self, who: str, reason: str) -> OperatorOverride:
        return OperatorOverride(by=who, reason=reason, since=self._messaging.dispatcher.clock.wall())

    async def drain(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> list[str]:
        """Have a service take no new work; return what was still in flight after `wait` seconds."""
        if self._is_remote(on_host):
            return await self._remote_in_progress(ctx, on_host, "service_drain", topic, wait)
        who = _requester_name(ctx, asked_by)
        left = await self._runtime.service_actions.drain(topic, wait, f"drained by {who}")
        if not left:
            self._runtime.state_notifier.notify_operator(topic, "drained", who)
        return left

    async def resume(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Have a service that drains take work again."""
        if self._is_remote(on_host):
            return await self._call_remote(ctx, on_host, "service_resume", topic)
        self._runtime.service_actions.resume(topic)
        return await self.show(topic, "")

    async def stop(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> list[str]:
        """Drain a service and take it down; return what hangs."""
        if self._is_remote(on_host):
            return await self._remote_in_progress(ctx, on_host, "service_stop", topic, wait)
        return await self._runtime.service_actions.stop(topic, wait, f"stopped by {_requester_name(ctx, asked_by)}")

    async def start(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Start a service that has stopped or failed."""
        if self._is_remote(on_host):
            return await self._call_remote(ctx, on_host, "service_start", topic)
        await self._runtime.service_actions.start(topic)
        return await self.show(topic, "")

    async def restart(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> ServiceStatus:
        """Take a service down and start it again."""
        if self._is_remote(on_host):
            asked_by = self._requester(ctx)
            return await self._call_remote(ctx, on_host, "service_restart", topic, wait=wait, asked_by=asked_by)
        await self._runtime.service_actions.restart(topic, wait, f"restarted by {_requester_name(ctx, asked_by)}")
        return await self.show(topic, "")

    async def delete(self, ctx: Context, topic: str, on_host: str) -> None:
        """Remove the record of a service that was removed.

        Raises:
            NotFound: There is no such record.
            Conflict: The service exists; its next report would create the record again, enabled.
        """
        found = await self.show(topic, on_host)
        if found.host == self._runtime.host:
            self._runtime.service_actions.forget(topic)
        elif (peers := self._messaging.peer_links) is not None and peers.has_service(found.host, topic):
            raise Conflict(
                f"host {found.host} is up and has a service {topic}",
                hint="first remove it from the configuration of that host, or the host from [network.peers] here",
                topic=topic, host=found.host,
            )  # fmt: skip
        records = self._runtime.service_records
        await self._runtime.store.awrite(lambda: records.delete(topic, found.host), label="service delete")
        self._runtime.upgrades.invalidate()
        self._runtime.host_view.on_change()
        self._runtime.state_notifier.notify_operator(
            topic, "deleted", ctx.peer.name, f"its record of {found.host} was removed"
        )

    # ---------------------------------------------------------------- other hosts

    def _is_remote(self, on_host: str) -> bool:
        return on_host not in ("", self._runtime.host)

    async def _call_remote(self, ctx: Context, host: str, method: str, topic: str, **more: Json) -> ServiceStatus:
        row = await self._relay(ctx, host, method, topic, ServiceStatus, **more)
        return msgspec.structs.replace(row, here=False)

    async def _remote_in_progress(self, ctx: Context, host: str, method: str, topic: str, wait: float) -> list[str]:
        return await self._relay(ctx, host, method, topic, list[str], wait=wait, asked_by=self._requester(ctx))

    async def _relay(self, ctx: Context, host: str, method: str, topic: str, kind: type[T], **more: Json) -> T:
        """Have another host operate on a service of its own, and record the new state of that service here.

        Raises:
            ServiceNotFound: There is no such host.
            DaemonNotRunning: It is unreachable; says since when.
            NotPermitted: The caller lacks the role here, or this host lacks it there.
            OstlerError: The error of that host.
        """
        arguments = {name: value for name, value in more.items() if value}
        ask = CallRequest(CONTROL_TOPIC, method, {"topic": topic, **arguments})
        try:
            result = await self._messaging.router.relay(ctx, host, ask)
        except DaemonNotRunning as error:
            raise DaemonNotRunning(
                f"{method.removeprefix('service_')} of {topic} on {host} failed: {error.message}",
                hint=error.hint, **error.details,
            ) from None  # fmt: skip
        finally:
            if (peers := self._messaging.peer_links) is not None:
                await peers.refresh(host)
            self._runtime.upgrades.invalidate()
        return msgspec.convert(result, kind)

    def _requester(self, ctx: Context) -> str:
        return f"{ctx.peer.name} on {self._runtime.host}"


_DELETE_HINT = "`ostler service delete {}` removes its record"


def _disabled_topics(services: Mapping[str, OptionsModel]) -> list[str]:
    return [topic for topic, options in services.items() if not getattr(options, "enabled", True)]


def _requester_name(ctx: Context, asked_by: str) -> str:
    """Return who asks; for a request that a host forwards, also the original caller as reported by that host."""
    if not ctx.peer.key or not asked_by:
        return ctx.peer.name
    check_length("`asked_by`", asked_by, NAME_LIMIT)
    return f"{asked_by}, by {ctx.peer.name}"
