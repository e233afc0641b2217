"""SIGHUP and `ostler reload`: validate everything first, then apply, reset the managers, and give a verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ostler import log
from ostler.aio import WorkerPool
from ostler.bounds import WHY_LIMIT, text_of
from ostler.config import diff
from ostler.config.changes import note_secrets_in_use
from ostler.daemon.steps import Steps
from ostler.errors import ConfigurationError, Draining, OstlerError, ServiceError, describe, is_a, joined
from ostler.printable import printable
from ostler.redaction import SECRETS
from ostler.types import CONTROL_TOPIC, Change, Verdict

if TYPE_CHECKING:
    from ostler.config.layers import RawConfiguration
    from ostler.daemon.core import Daemon
    from ostler.service.assembly import Assembly

_log = logging.getLogger(__name__)
_SIGNAL = "SIGHUP"
_HANGS_AFTER = 10.0
"""Seconds of reading after which the next who asks for a reload is not made to wait for it any longer."""
_MOST_HUNG = 4
"""Threads that may be left behind by reloads that hang."""
_TELL_INTERVAL = 1.0
_WAITS = ("service", "daemon")
"""What cannot be changed in a running daemon yet, and is reported as needing a restart."""


class Reloader:
    """Takes over a new configuration, or refuses it whole.

    Several requests while one reload runs share the next one. A request during the start is carried out after it.

    Args:
        daemon: The daemon that is reloaded.
        read: Reads and validates the whole configuration, in a thread: tells each step that it begins, and is handed
            what was read before.
    """

    def __init__(self, daemon: Daemon, read: Callable[[Callable[[str], object], RawConfiguration], Assembly]) -> None:
        self._daemon = daemon
        self._read = read
        self._running = asyncio.Lock()
        self._next: asyncio.Task[Verdict] | None = None
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self._for_signal = False
        self._steps = Steps("reloading")
        self._reading: tuple[float, asyncio.Future[None]] | None = None
        self._pools: list[WorkerPool] = []
        self.last: Verdict | None = None

    def request(self) -> None:
        """Take note of SIGHUP. On the loop; the verdict goes to the log and to systemd's STATUS."""
        self._join(_SIGNAL)

    async def reload(self, who: str) -> Verdict:
        """Reload and return the verdict. On the loop.

        Args:
            who: Who asked, for the log.

        Raises:
            ConfigurationError: The new configuration is refused; nothing has changed.
            Draining: The daemon is being stopped, or its start has failed; nothing has changed.
        """
        return await asyncio.shield(self._join(who))

    def _join(self, who: str) -> asyncio.Task[Verdict]:
        """Return the next reload, which has not read anything yet."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._take_turn(who), name=f"reload for {who}")
            # The loop itself keeps no task alive, and whoever asked may have gone by its end.
            self._tasks.add(self._next)
            self._next.add_done_callback(self._ended)
        return self._next

    def _ended(self, task: asyncio.Task[Verdict]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: it is in the log with the verdict, nobody else may be there to learn of it

    async def stop(self) -> None:
        """Wait no longer for reloads under way. On the loop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_turn(self, who: str) -> Verdict:
        hurried = None
        try:
            await asyncio.shield(self._daemon.started)
            hurried = self._give_up_what_hangs()
            await self._running.acquire()
        finally:
            self._next = None  # who asks from here on has perhaps changed a file that was read already
            if hurried is not None:
                hurried.cancel()
        try:
            self._refuse_in_the_end()
            return await self._reload(who)
        finally:
            self._running.release()

    def _give_up_what_hangs(self) -> asyncio.TimerHandle | None:
        """Have the reading that is under way given up soon: its cause may be gone, and somebody waits for the next."""
        if self._reading is None:
            return None
        since, given_up = self._reading
        loop = asyncio.get_running_loop()
        return loop.call_at(max(loop.time(), since + _HANGS_AFTER), _resolve, given_up)

    def _refuse_in_the_end(self) -> None:
        # A `reset` after `cleanup_host` would set up again what was just taken down.
        if self._daemon.ending:
            raise Draining("the daemon is being stopped", hint="the next start takes the new configuration")

    async def _reload(self, who: str) -> Verdict:
        daemon = self._daemon
        _log.info("reload for %s", who)
        self._for_signal = who == _SIGNAL
        # One datagram with both: under Type=notify-reload a reload hangs otherwise.
        daemon.notifier.reloading(int(daemon.clock.monotonic() * 1_000_000))
        teller = asyncio.get_running_loop().create_task(self._tell(), name="tell systemd how far the reload is")
        try:
            SECRETS.begin()
            assembly = await self._validated()
            self._refuse_in_the_end()
            verdict = await self._apply(assembly)
            note_secrets_in_use(daemon.started_with)
            SECRETS.commit()
        except ConfigurationError as error:
            self._finish(self._refusal(error))
            raise
        except BaseException as error:
            # Whatever it was: systemd waits for the end of this reload.
            level = logging.DEBUG if is_a(error, (OstlerError, asyncio.CancelledError)) else logging.ERROR
            _log.log(level, "the reload failed", exc_info=error)
            self._finish(self._verdict(ok=False, summary=f"reload failed: {describe(error)}"))
            raise
        finally:
            teller.cancel()
        return self._finish(verdict)

    async def _tell(self) -> None:
        while not self._daemon.ending:
            await asyncio.sleep(_TELL_INTERVAL)
            self._steps.tell(self._daemon.notifier)

    async def _validated(self) -> Assembly:
        """Read and validate on a thread; one that hangs is left behind, and the next reload reads on another.

        Raises:
            ServiceError: It did not come back in time, or too many that hang were left behind.
        """
        self._refuse_more_threads()
        loop = asyncio.get_running_loop()
        steps = self._steps = Steps("reloading")
        pool = WorkerPool("ostler-reload", 1)
        self._pools.append(pool)
        limit = self._daemon.assembly.configuration.daemon.reload_timeout
        given_up: asyncio.Future[None] = loop.create_future()
        self._reading = loop.time(), given_up
        before = self._daemon.assembly.configuration.raw
        reading = asyncio.ensure_future(pool.run(lambda: self._read(steps, before), label="read the configuration"))
        try:
            waited: tuple[asyncio.Future[Any], ...] = (reading, given_up)
            await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            raise ServiceError(
                f"{steps.now} has not come back for {loop.time() - self._reading[0]:.0f} s; nothing has changed",
                hint="see `ostler dump` for where it hangs, and reload again when the cause has gone",
            )
        finally:
            self._reading = None
            reading.cancel()
            pool.close()

    def _refuse_more_threads(self) -> None:
        self._pools = [pool for pool in self._pools if pool.running()]
        if len(self._pools) >= _MOST_HUNG:
            raise ServiceError(
                f"{len(self._pools)} earlier reloads still hang in reading the configuration; nothing has changed",
                hint="see `ostler dump` for where they hang; restart the daemon if they never come back",
            )

    def _verdict(self, *, ok: bool, summary: str, problems: Sequence[str] = ()) -> Verdict:
        return Verdict(ok=ok, at=self._daemon.clock.wall(), summary=summary, problems=list(problems))

    def _refusal(self, error: ConfigurationError) -> Verdict:
        count = len(error.problems)
        summary = f"reload refused, nothing has changed: {count} problem{'s' if count > 1 else ''}"
        return self._verdict(
            ok=False, summary=summary, problems=[text_of(problem, WHY_LIMIT) for problem in error.problems]
        )

    def _finish(self, verdict: Verdict) -> Verdict:
        self.last = verdict
        if self._for_signal and self._daemon.auditor is not None:  # a request is kept as one
            error = "" if verdict.ok else "ConfigurationError"
            text = "; ".join([verdict.summary, *verdict.problems])
            self._daemon.auditor.log.note(_SIGNAL, CONTROL_TOPIC, "reload", error, text)
        level = logging.INFO if verdict.ok else logging.ERROR
        extra = log.event("reload") | log.detail("\n".join(map(printable, verdict.problems)))
        _log.log(level, "%s", verdict.summary, extra=extra)
        if not self._daemon.ending:
            self._daemon.notifier.ready(verdict.summary)
        return verdict

    async def _apply(self, assembly: Assembly) -> Verdict:
        daemon, new = self._daemon, assembly.configuration
        changes = diff(daemon.assembly.configuration, new)
        gone = [file for file in daemon.assembly.configuration.raw.files if file not in new.raw.files]
        # Against what the daemon was started with: a change that waits for a restart waits over several reloads.
        waiting = [change for change in diff(daemon.started_with, new) if change.needs in _WAITS]
        daemon.apply_live(assembly)
        problems = await daemon.reset_services(assembly, self._steps)
        pending = daemon.runtime.pending() if daemon.runtime is not None else []
        return Verdict(
            ok=not problems,
            at=daemon.clock.wall(),
            summary=_summary(changes, waiting, problems, gone, pending),
            changes=changes,
            needs_restart=[change.path for change in waiting],
            problems=problems,
            pending=pending,
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _summary(
    changes: Sequence[Change],
    waiting: Sequence[Change],
    problems: Sequence[str],
    gone: Sequence[str],
    pending: Sequence[str],
) -> str:
    live = [change.path for change in changes if change.needs not in _WAITS]
    parts = [f"changed {joined(live)}" if live else "nothing to change live"]
    if waiting:
        parts.append(f"needs a restart for {joined(change.path for change in waiting)}")
    if gone:
        parts.append(f"no longer there: {joined(gone)}")
    if pending:
        what = "drivers take" if len(pending) > 1 else "driver takes"
        parts.append(f"{len(pending)} {what} new options when work under way has ended")
    if problems:
        parts.append(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    return f"reloaded{' with problems' if problems else ''}: {'; '.join(parts)}"
