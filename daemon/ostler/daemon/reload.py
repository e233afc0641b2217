"""SIGHUP and `ostler reload`: validate everything first, then apply, reset the managers, and give a verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ostler import log
from ostler.aio import WorkerPool
from ostler.config import diff
from ostler.errors import ConfigurationError, Draining, OstlerError, describe, joined
from ostler.types import Change, Verdict

if TYPE_CHECKING:
    from ostler.daemon.core import Daemon
    from ostler.service.assembly import Assembly

_log = logging.getLogger(__name__)
_WAITS = ("service", "daemon")
"""What cannot be changed in a running daemon yet, and is reported as needing a restart."""


class Reloader:
    """Takes over a new configuration, or refuses it whole.

    Several requests while one reload runs share the next one. A request during the start is carried out after it.

    Args:
        daemon: The daemon that is reloaded.
        read: Reads and validates the whole configuration; runs in a thread.
    """

    def __init__(self, daemon: Daemon, read: Callable[[], Assembly]) -> None:
        self._daemon = daemon
        self._read = read
        self._running = asyncio.Lock()
        self._next: asyncio.Task[Verdict] | None = None
        self._in_force = daemon.assembly.configuration
        self.last: Verdict | None = None

    def request(self) -> None:
        """Take note of SIGHUP. On the loop; the verdict goes to the log and to systemd's STATUS."""
        self._daemon.tasks.spawn(self._on_signal(), name="reload after SIGHUP")

    async def _on_signal(self) -> None:
        try:
            await self.reload("SIGHUP")
        except OstlerError:  # logged with the verdict
            return

    async def reload(self, who: str) -> Verdict:
        """Reload and return the verdict. On the loop.

        Args:
            who: Who asked, for the log.

        Raises:
            ConfigurationError: The new configuration is refused; nothing has changed.
            Draining: The daemon is being stopped; nothing has changed.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._take_turn(who), name=f"reload for {who}")
        return await asyncio.shield(self._next)

    async def _take_turn(self, who: str) -> Verdict:
        await asyncio.shield(self._daemon.started)
        async with self._running:
            self._next = None  # who asks from here on has perhaps changed a file that was read already
            return await self._reload(who)

    async def _reload(self, who: str) -> Verdict:
        daemon = self._daemon
        _log.info("reload for %s", who)
        # One datagram with both: under Type=notify-reload a reload hangs otherwise.
        daemon.notifier.reloading(int(daemon.clock.monotonic() * 1_000_000))
        try:
            assembly = await self._validated()
            if daemon.ending:  # a `reset` after `cleanup_host` would set up again what was just taken down
                raise Draining("the daemon is being stopped", hint="the next start takes the new configuration")
        except ConfigurationError as error:
            self._refuse(error)
            raise
        except BaseException as error:
            self._finish(Verdict(ok=False, at=daemon.clock.wall(), summary=f"reload failed: {describe(error)}"))
            raise
        return self._finish(await self._apply(assembly))

    async def _validated(self) -> Assembly:
        pool = WorkerPool("ostler-reload", 1)
        try:
            return await pool.run(self._read, label="read the configuration")
        finally:
            pool.close()

    def _refuse(self, error: ConfigurationError) -> None:
        count = len(error.problems)
        self._finish(
            Verdict(
                ok=False,
                at=self._daemon.clock.wall(),
                summary=f"reload refused, nothing has changed: {count} problem{'s' if count > 1 else ''}",
                problems=[str(problem) for problem in error.problems],
            )
        )

    def _finish(self, verdict: Verdict) -> Verdict:
        self.last = verdict
        level = logging.INFO if verdict.ok else logging.ERROR
        _log.log(level, "%s", "\n".join([verdict.summary, *verdict.problems]), extra=log.event("reload"))
        if not self._daemon.ending:
            self._daemon.notifier.ready(verdict.summary)
        return verdict

    async def _apply(self, assembly: Assembly) -> Verdict:
        daemon, new = self._daemon, assembly.configuration
        changes = diff(daemon.assembly.configuration, new)
        waiting = [change for change in diff(self._in_force, new) if change.needs in _WAITS]
        daemon.apply_live(assembly)
        problems = await self._reset_services(assembly, changes)
        return Verdict(
            ok=not problems,
            at=daemon.clock.wall(),
            summary=_summary(changes, waiting, problems),
            changes=changes,
            needs_restart=[change.path for change in waiting],
            problems=problems,
        )

    async def _reset_services(self, assembly: Assembly, changes: Sequence[Change]) -> list[str]:
        problems = []
        specs = {spec.topic: spec for spec in assembly.specs}
        for service in self._daemon.services:
            spec = specs.get(service.topic)
            if spec is None:  # taken out of the configuration: goes with the restart
                continue
            if self._daemon.ending:
                problems.append(f"service {service.topic} was not reset: the daemon is being stopped")
                continue
            try:
                await service.reset(spec)
                for name in _drivers_to_renew(service.topic, changes):
                    await service.renew_driver(name, spec.drivers[name][1])
            except OstlerError as error:
                problems.append(str(error))
        return problems


def _drivers_to_renew(topic: str, changes: Sequence[Change]) -> list[str]:
    prefix = f"services.{topic}.drivers."
    names = {
        change.path.removeprefix(prefix).split(".")[0]
        for change in changes
        if change.needs == "driver" and change.path.startswith(prefix)
    }
    return sorted(names)


def _summary(changes: Sequence[Change], waiting: Sequence[Change], problems: Sequence[str]) -> str:
    live = [change.path for change in changes if change.needs not in _WAITS]
    parts = [f"changed {joined(live)}" if live else "nothing to change live"]
    if waiting:
        parts.append(f"needs a restart for {joined(change.path for change in waiting)}")
    if problems:
        parts.append(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    return f"reloaded{' with problems' if problems else ''}: {'; '.join(parts)}"
