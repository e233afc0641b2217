"""SIGHUP and `ostler reload`: validate everything first, then apply, reset the managers, and return a verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ostler import log
from ostler.aio import WorkerPool
from ostler.bounds import WHY_LIMIT, safe_str
from ostler.config import diff
from ostler.config.configuration_diff import RESTART_LEVEL, note_secrets_in_use
from ostler.daemon.active_configuration import ActiveConfiguration
from ostler.daemon.policy_check import policy_warnings
from ostler.daemon.reload_verdict import applied_summary, undone_summary
from ostler.daemon.startup.step_tracker import StepTracker
from ostler.errors import ConfigurationError, Draining, OstlerError, ServiceError, error_line, is_a
from ostler.operations import OperationLimits
from ostler.printable import printable
from ostler.redaction import SECRETS
from ostler.reload_types import OptionChange, ReloadPlan, ReloadResult
from ostler.service.left_out import left_out_topics
from ostler.service.service_changes import ReloadOptions, ReloadOutcome, ReversibleStep, daemon_step_position
from ostler.service.service_plan import Action, ServiceStep
from ostler.time_text import format_duration
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.daemon.connectivity.audit_service import AuditService
    from ostler.daemon.daemon_parts import DaemonParts
    from ostler.service.resolve import ResolvedConfiguration
    from ostler.systemd import ServiceNotifier

_log = logging.getLogger(__name__)
_SIGHUP = "SIGHUP"
_STUCK_READ_TIMEOUT = 10.0
"""Seconds of reading after which the next reload request no longer waits for it."""
_MAX_STUCK_THREADS = 4
"""The most threads left running by reloads that hang."""
_STATUS_INTERVAL = 1.0


class Reloader:
    """Applies a new configuration, or refuses it as a whole.

    Several requests while one reload runs share the next one. A request during the start is carried out after it.

    Args:
        active: The configuration in effect, which a reload replaces.
        load_configuration: Reads and validates the whole configuration, in a thread; gets a function to call with each
            step, and the configuration that is in effect.
        start_finished: The parts of the daemon, once its start has finished; raises when it has failed.
        notifier: Notifies systemd.
        clock: The source of time.
        is_stopping: Returns whether the daemon is being stopped.
        on_applied: Called after a reload that was carried out.
        status_suffix: Returns what waits for a new process, for systemd's STATUS after a reload that has failed.
    """

    def __init__(
        self,
        active: ActiveConfiguration,
        load_configuration: Callable[[Callable[[str], object], ResolvedConfiguration], ResolvedConfiguration],
        start_finished: asyncio.Future[DaemonParts],
        notifier: ServiceNotifier,
        clock: Clock,
        is_stopping: Callable[[], bool],
        *,
        on_applied: Callable[[DaemonParts], object] = lambda _parts: None,
        status_suffix: Callable[[], str] = str,
    ) -> None:
        self._active = active
        self._load_configuration = load_configuration
        self._start_finished = start_finished
        self._notifier = notifier
        self._clock = clock
        self._is_stopping = is_stopping
        self._on_applied = on_applied
        self._status_suffix = status_suffix
        self._lock = asyncio.Lock()
        self._queued_reload: asyncio.Task[ReloadResult] | None = None
        self._keep_failed = False
        """What the queued reload does."""
        self._tasks: set[asyncio.Task[ReloadResult]] = set()
        self._step_tracker = StepTracker("reloading")
        self._current_read: tuple[float, asyncio.Future[None]] | None = None
        self._pools: list[WorkerPool] = []
        self.last_result: ReloadResult | None = None

    def on_sighup(self) -> None:
        """Request a reload for SIGHUP. On the loop; the verdict goes to the log and to systemd's STATUS."""
        self._join_queued_reload(_SIGHUP)

    async def reload(self, requester: str, *, keep_failed: bool = False) -> ReloadResult:
        """Reload and return the verdict. On the loop.

        Args:
            requester: Who asked, for the log.
            keep_failed: Whether drivers that do not work with what is new keep it and are tried again, instead of a
                reload that is undone; it holds for all who share this reload.

        Raises:
            ConfigurationError: The new configuration is refused; nothing has changed.
            Draining: The daemon is being stopped, or its start has failed; nothing has changed.
        """
        reload = self._join_queued_reload(requester)
        self._keep_failed = self._keep_failed or keep_failed
        return await asyncio.shield(reload)

    def _join_queued_reload(self, requester: str) -> asyncio.Task[ReloadResult]:
        """Return the next reload, which has not started reading."""
        if self._queued_reload is None:
            self._queued_reload = asyncio.get_running_loop().create_task(
                self._run_queued_reload(requester), name=f"reload for {requester}"
            )
            # The loop itself keeps no reference to a task, and the caller may have gone by its end.
            self._tasks.add(self._queued_reload)
            self._queued_reload.add_done_callback(self._on_reload_done)
        return self._queued_reload

    def _on_reload_done(self, task: asyncio.Task[ReloadResult]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: it is in the log with the verdict, and there may be no waiter

    def problems(self) -> list[str]:
        """Return a line when the files are not what runs, because the last reload was refused or undone."""
        result = self.last_result
        if result is None or result.ok or result.changes:
            return []
        if result.steps:
            what = "the last reload was undone, and the files have what did not work"
        else:
            what = "the last reload was refused or failed, and the files have not been applied"
        return [f"{what}: a restart would use them; see `ostler config diff`, then `ostler reload`"]

    async def stop(self) -> None:
        """Stop waiting for reloads in progress. On the loop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_queued_reload(self, requester: str) -> ReloadResult:
        hurried = None
        try:
            parts = await asyncio.shield(self._start_finished)
            hurried = self._cut_off_stuck_read()
            await self._lock.acquire()
        finally:
            self._queued_reload = None  # a later request may follow a change of a file that was already read
            keep_failed, self._keep_failed = self._keep_failed, False
            if hurried is not None:
                hurried.cancel()
        try:
            self._raise_if_stopping()
            return await self._reload(parts, requester, keep_failed)
        finally:
            self._lock.release()

    def _cut_off_stuck_read(self) -> asyncio.TimerHandle | None:
        """Schedule giving up the read in progress: the cause of its hang may be gone, and the next reload waits."""
        if self._current_read is None:
            return None
        since, given_up = self._current_read
        loop = asyncio.get_running_loop()
        return loop.call_at(max(loop.time(), since + _STUCK_READ_TIMEOUT), _set_done, given_up)

    def _raise_if_stopping(self) -> None:
        # A `reset` after `cleanup_host` would set up again what was just taken down.
        if self._is_stopping():
            raise Draining("the daemon is stopping", hint="the next start uses the new configuration")

    async def _reload(self, parts: DaemonParts, requester: str, keep_failed: bool) -> ReloadResult:
        _log.info("reload for %s", requester)
        audit = parts.audit_service if requester == _SIGHUP else None  # a request has its own audit entry
        # One datagram with both: under Type=notify-reload a reload hangs otherwise.
        self._notifier.reloading(int(self._clock.monotonic() * 1_000_000))
        teller = asyncio.get_running_loop().create_task(
            self._report_progress(), name="report the progress of the reload to systemd"
        )
        try:
            result = await self._load_and_apply(parts, keep_failed)
        except ConfigurationError as error:
            error.send_sources()
            self._finish(self._refused_result(error), audit)
            raise
        except BaseException as error:
            # Any error: systemd waits for the end of this reload.
            level = logging.DEBUG if is_a(error, (OstlerError, asyncio.CancelledError)) else logging.ERROR
            _log.log(level, "the reload failed", exc_info=error)
            self._finish(self._make_result(ok=False, summary=f"reload failed: {error_line(error)}"), audit)
            raise
        finally:
            teller.cancel()
        return self._finish(result, audit)

    async def _load_and_apply(self, parts: DaemonParts, keep_failed: bool) -> ReloadResult:
        SECRETS.begin_update()
        resolved = await self._load_on_thread()
        self._raise_if_stopping()
        result = await self._apply(parts, resolved, keep_failed)
        note_secrets_in_use(self._active.running)
        if self._active.resolved is resolved:  # else what was read before is in use
            SECRETS.commit_update()
        return result

    async def _report_progress(self) -> None:
        while not self._is_stopping():
            await asyncio.sleep(_STATUS_INTERVAL)
            self._step_tracker.report(self._notifier)

    async def _load_on_thread(self) -> ResolvedConfiguration:
        """Read and validate on a thread; one that hangs is abandoned, and the next reload uses another thread.

        Raises:
            ServiceError: It did not return in time, or too many threads of earlier reloads hang.
        """
        self._check_stuck_threads()
        loop = asyncio.get_running_loop()
        steps = self._step_tracker = StepTracker("reloading")
        pool = WorkerPool("ostler-reload", 1)
        self._pools.append(pool)
        limit = self._active.options.daemon.reload_timeout
        given_up: asyncio.Future[None] = loop.create_future()
        self._current_read = loop.time(), given_up
        before = self._active.resolved
        reading = asyncio.ensure_future(
            pool.run(lambda: self._load_configuration(steps, before), label="read the configuration")
        )
        try:
            waited: tuple[asyncio.Future[Any], ...] = (reading, given_up)
            await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            raise ServiceError(
                f"{steps.current_step} has not returned for {format_duration(loop.time() - self._current_read[0])}; "
                "nothing has changed",
                hint="`ostler dump` shows where it hangs; fix the cause, then reload again",
            )
        finally:
            self._current_read = None
            reading.cancel()
            pool.close()

    def _check_stuck_threads(self) -> None:
        self._pools = [pool for pool in self._pools if pool.running_jobs()]
        if len(self._pools) >= _MAX_STUCK_THREADS:
            raise ServiceError(
                f"{len(self._pools)} earlier reloads still hang while reading the configuration; nothing has changed",
                hint="`ostler dump` shows where they hang; restart the daemon if they never return",
            )

    def _make_result(self, *, ok: bool, summary: str, problems: Sequence[str] = ()) -> ReloadResult:
        return ReloadResult(ok=ok, at=self._clock.wall(), summary=summary, problems=list(problems))

    def _refused_result(self, error: ConfigurationError) -> ReloadResult:
        count = len(error.problems)
        summary = f"reload refused, nothing has changed: {count} problem{'s' if count > 1 else ''}"
        return self._make_result(
            ok=False, summary=summary, problems=[safe_str(problem, WHY_LIMIT) for problem in error.problems]
        )

    def _finish(self, result: ReloadResult, audit: AuditService | None) -> ReloadResult:
        self.last_result = result
        if audit is not None:
            error = "" if result.ok else "ConfigurationError"
            text = "; ".join([result.summary, *result.problems])
            audit.log.record_action(_SIGHUP, CONTROL_TOPIC, "reload", error, text)
        level = logging.INFO if result.ok else logging.ERROR
        extra = log.message_id("reload") | log.detail("\n".join(map(printable, result.problems)))
        _log.log(level, "%s", result.summary, extra=extra)
        if not self._is_stopping():
            suffix = "" if result.ok else self._status_suffix()
            self._notifier.ready(f"{result.summary}{suffix}")
        return result

    async def plan(self) -> ReloadPlan:
        """Read and validate the configuration, and return what a reload would do with it now. On the loop.

        Raises:
            ConfigurationError: A reload would be refused.
            Draining: The daemon is being stopped, or its start has failed.
        """
        parts = await asyncio.shield(self._start_finished)
        async with self._lock:
            self._raise_if_stopping()
            return self._make_plan(parts, await self._load_on_thread())

    def _make_plan(self, parts: DaemonParts, resolved: ResolvedConfiguration) -> ReloadPlan:
        changes = diff(self._active.options, resolved.configuration)
        steps = [*parts.runtime.plan(resolved.specs).steps]
        steps.insert(daemon_step_position(steps), _daemon_step(changes))
        waiting = self._active.restart_changes(resolved.configuration)
        shown = [step.to_wire() for step in steps if step.options or step.action not in _QUIET_ACTIONS]
        return ReloadPlan(changes=changes, steps=shown, needs_restart=waiting, warnings=resolved.warnings)

    async def _apply(self, parts: DaemonParts, resolved: ResolvedConfiguration, keep_failed: bool) -> ReloadResult:
        before = self._active.resolved
        changes = diff(before.configuration, resolved.configuration)
        daemon_part = ReversibleStep(
            _daemon_step(changes),
            lambda: _apply_options(parts, resolved),
            lambda: _apply_options(parts, before),
        )
        outcome, problems = await parts.runtime.reload(
            parts.runtime.plan(resolved.specs),
            daemon_part,
            should_continue=lambda: not self._is_stopping(),
            on_step=self._step_tracker,
            options=ReloadOptions(
                resolved.configuration.daemon.reload_timeout, resolved.plugins.migrations(), keep_failed
            ),
        )
        if outcome.was_stopped:
            raise Draining("the daemon is stopping", hint="the next start uses the new configuration")
        if outcome.failure:
            return self._failed_result(outcome, problems)
        self._active.commit(resolved)
        await parts.runtime.mark_gone(resolved.configuration.network.peers, left_out_topics(resolved.left_out))
        self._on_applied(parts)
        return self._applied_result(parts, before, changes, outcome, problems)

    def _failed_result(self, outcome: ReloadOutcome, problems: Sequence[str]) -> ReloadResult:
        lines = [outcome.failure, *outcome.not_undone, *problems]
        return ReloadResult(
            ok=False,
            at=self._clock.wall(),
            summary=undone_summary(outcome.failure, outcome.not_undone),
            steps=outcome.steps,
            needs_restart=self._active.pending_restart(),
            problems=[safe_str(line, WHY_LIMIT) for line in lines],
        )

    def _applied_result(
        self,
        parts: DaemonParts,
        before: ResolvedConfiguration,
        changes: list[OptionChange],
        outcome: ReloadOutcome,
        problems: list[str],
    ) -> ReloadResult:
        files = self._active.options.raw.files
        gone = [file for file in before.configuration.raw.files if file not in files]
        pending = parts.runtime.pending_options()
        waiting = self._active.pending_restart()
        return ReloadResult(
            ok=not problems,
            at=self._clock.wall(),
            summary=applied_summary(changes, waiting, problems, gone, pending),
            changes=changes,
            steps=[step for step in outcome.steps if step.options or step.action not in _QUIET_ACTIONS],
            needs_restart=waiting,
            problems=problems,
            pending=pending,
        )


_QUIET_ACTIONS = (Action.APPLY_OPTIONS, Action.APPLY_DAEMON_OPTIONS)


def _is_daemon_option(change: OptionChange) -> bool:
    return not change.path.startswith("services.") and change.needs != RESTART_LEVEL


def _daemon_step(changes: Sequence[OptionChange]) -> ServiceStep:
    paths = tuple(change.path for change in changes if _is_daemon_option(change))
    return ServiceStep(Action.APPLY_DAEMON_OPTIONS, "daemon", options=paths)


async def _apply_options(parts: DaemonParts, resolved: ResolvedConfiguration) -> None:
    """Apply what a reload may change in the daemon itself."""
    options = resolved.configuration
    log.set_up(level=options.log.level, format=options.log.format, levels=options.log.levels)
    parts.store.retention_clock.trust_wall_clock()
    parts.store.set_slow_transaction(options.store.slow_transaction)
    parts.store.set_backup_count(options.store.backups)
    parts.messaging.apply(options, resolved.journaled_topics())
    parts.messaging.notifications.configure(options.notifications.model_dump(), resolved.sinks)
    parts.audit_service.configure(options)
    parts.runtime.gone_age = options.daemon.gone_age
    parts.runtime.operations.apply(OperationLimits.from_options(options.operations))
    for warning in policy_warnings(resolved):
        _log.warning("%s", warning)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
