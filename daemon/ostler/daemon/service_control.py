"""What an operator does with services, on this host or on another: the verbs of `ostler service`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from ostler.bounds import NAME_LIMIT
from ostler.errors import Conflict, NotFound, NotRunning, check_length
from ostler.messaging.rpc.core import Ask
from ostler.types import CONTROL_TOPIC, Json, Role, ServiceState, ServiceStatus

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon
    from ostler.daemon.peers import PeerLinks
    from ostler.messaging import Context
    from ostler.service import Runtime

T = TypeVar("T")


class ServiceControl:
    """Carries out what an operator says of a service. On the loop.

    What is said of a service of another host is done by that host: it is asked on its topic `ostler`, as this host and
    with the roles that are given there, and what it says then is kept here at once. A host that cannot be asked is
    an error: nothing is written here that the host itself does not know.

    Args:
        daemon: Whose services these are.
        runtime: Its services at work.
    """

    def __init__(self, daemon: Daemon, runtime: Runtime) -> None:
        self._daemon = daemon
        self._runtime = runtime

    async def show(self, topic: str, on_host: str) -> ServiceStatus:
        """Return one service of the table.

        Raises:
            NotFound: There is none.
        """
        wanted = on_host or self._daemon.host
        for row in await self._runtime.rows():
            if (row.topic, row.host) == (topic, wanted):
                return row
        raise NotFound(f"there is no service {topic} on {wanted}", hint="see `ostler service list`", topic=topic)

    async def enable(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Have a service take new work again, after it was disabled; for an administrator after a drain as well."""
        if self._is_elsewhere(on_host):
            return await self._there(ctx, on_host, "service_enable", topic)
        await self._set_enabled(topic, enabled=True, who=ctx.peer.name)
        service = self._runtime.group.services.get(topic)
        if service is not None and service.draining and ctx.role is Role.ADMIN:  # to drain is for administrators
            self._runtime.operations.resume(topic)
        return await self.show(topic, "")

    async def disable(self, ctx: Context, topic: str, on_host: str, reason: str, asked_by: str) -> ServiceStatus:
        """Have a service given no new work."""
        if self._is_elsewhere(on_host):
            asked_by = self._asker(ctx)
            return await self._there(ctx, on_host, "service_disable", topic, reason=reason, asked_by=asked_by)
        await self._set_enabled(topic, enabled=False, reason=reason, who=_who(ctx, asked_by))
        return await self.show(topic, "")

    async def _set_enabled(self, topic: str, *, enabled: bool, reason: str = "", who: str = "") -> None:
        host, records = self._daemon.host, self._runtime.records
        row = await self.show(topic, "")
        if row.state is ServiceState.GONE:
            raise NotFound(f"service {topic} on {host} is gone: {row.why}", hint=_FORGET.format(topic), topic=topic)
        await self._runtime.store.awrite(
            lambda: records.set_enabled(topic, host, enabled=enabled, reason=reason, who=who),
            label="service enable" if enabled else "service disable",
        )
        if row.enabled is not enabled:
            self._runtime.events.operator(topic, "enabled" if enabled else "disabled", who, reason)
        self._runtime.upgrades.forget()
        self._runtime.view.changed()
        self._runtime.capability_reporter.poke(topic)

    async def drain(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> list[str]:
        """Have a service take no new work; return what was still in flight after `wait` seconds."""
        if self._is_elsewhere(on_host):
            return await self._left_there(ctx, on_host, "service_drain", topic, wait)
        who = _who(ctx, asked_by)
        left = await self._runtime.operations.drain(topic, wait, f"drained by {who}")
        if not left:
            self._runtime.events.operator(topic, "drained", who)
        return left

    async def resume(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Have a service that drains take work again."""
        if self._is_elsewhere(on_host):
            return await self._there(ctx, on_host, "service_resume", topic)
        self._runtime.operations.resume(topic)
        return await self.show(topic, "")

    async def stop(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> list[str]:
        """Drain a service and take it down; return what hangs."""
        if self._is_elsewhere(on_host):
            return await self._left_there(ctx, on_host, "service_stop", topic, wait)
        return await self._runtime.operations.stop(topic, wait, f"stopped by {_who(ctx, asked_by)}")

    async def start(self, ctx: Context, topic: str, on_host: str) -> ServiceStatus:
        """Start a service that has stopped or failed."""
        if self._is_elsewhere(on_host):
            return await self._there(ctx, on_host, "service_start", topic)
        try:
            await self._runtime.operations.start(topic)
        finally:
            self._daemon.took_over(topic)
        return await self.show(topic, "")

    async def restart(self, ctx: Context, topic: str, on_host: str, wait: float, asked_by: str) -> ServiceStatus:
        """Take a service down and start it again."""
        if self._is_elsewhere(on_host):
            asked_by = self._asker(ctx)
            return await self._there(ctx, on_host, "service_restart", topic, wait=wait, asked_by=asked_by)
        try:
            await self._runtime.operations.restart(topic, wait, f"restarted by {_who(ctx, asked_by)}")
        finally:
            self._daemon.took_over(topic)
        return await self.show(topic, "")

    async def forget(self, ctx: Context, topic: str, on_host: str) -> None:
        """Remove the record of a service that is gone.

        Raises:
            NotFound: There is no such record.
            Conflict: The service is there; it would be back with its next report, and enabled.
        """
        found = await self.show(topic, on_host)
        if found.host == self._daemon.host:
            self._runtime.operations.forget(topic)
        elif (peers := self._peers()) is not None and peers.reports(found.host, topic):
            raise Conflict(
                f"{found.host} is there and has a service {topic}",
                hint="take it out of the configuration there first, or the host out of [network.peers] here",
                topic=topic, host=found.host,
            )  # fmt: skip
        records = self._runtime.records
        await self._runtime.store.awrite(lambda: records.delete(topic, found.host), label="service forget")
        self._runtime.upgrades.forget()
        self._runtime.view.changed()
        self._runtime.events.operator(topic, "forgotten", ctx.peer.name, f"its record of {found.host} was removed")

    # ---------------------------------------------------------------- other hosts

    def _is_elsewhere(self, on_host: str) -> bool:
        return on_host not in ("", self._daemon.host)

    async def _there(self, ctx: Context, host: str, method: str, topic: str, **more: Json) -> ServiceStatus:
        row = await self._relayed(ctx, host, method, topic, ServiceStatus, **more)
        return msgspec.structs.replace(row, here=False)

    async def _left_there(self, ctx: Context, host: str, method: str, topic: str, wait: float) -> list[str]:
        return await self._relayed(ctx, host, method, topic, list[str], wait=wait, asked_by=self._asker(ctx))

    async def _relayed(self, ctx: Context, host: str, method: str, topic: str, kind: type[T], **more: Json) -> T:
        """Have another host do something with a service of its own, and keep here what became of that service.

        Raises:
            TargetNotFound: There is no such host.
            NotRunning: It cannot be reached; says since when.
            NotPermitted: The caller lacks the role here, or this host lacks it there.
            OstlerError: What the host said.
        """
        messages = self._daemon.messages
        assert messages is not None  # noqa: S101 - it brought this request
        arguments = {name: value for name, value in more.items() if value}
        ask = Ask(CONTROL_TOPIC, method, {"topic": topic, **arguments})
        try:
            result = await messages.client.router.relay(ctx, host, ask)
        except NotRunning as error:
            raise NotRunning(
                f"{method.removeprefix('service_')} of {topic} on {host} was not done: {error.message}",
                hint=error.hint, **error.facts,
            ) from None  # fmt: skip
        finally:
            if (peers := self._peers()) is not None:
                await peers.refresh(host)
            self._runtime.upgrades.forget()
        return msgspec.convert(result, kind)

    def _peers(self) -> PeerLinks | None:
        return self._daemon.messages.peers if self._daemon.messages is not None else None

    def _asker(self, ctx: Context) -> str:
        return f"{ctx.peer.name} on {self._daemon.host}"


_FORGET = "`ostler service forget {}` removes its record"


def _who(ctx: Context, asked_by: str) -> str:
    """Return who asks: of a host that passes on what somebody asked there, that somebody too, as that host says."""
    if not ctx.peer.key or not asked_by:
        return ctx.peer.name
    check_length("`asked_by`", asked_by, NAME_LIMIT)
    return f"{asked_by}, by {ctx.peer.name}"
