"""Tells systemd and the log what the daemon does: its start, its services, its health, its stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ostler import log
from ostler.daemon.process.stack_dump import format_dump, thread_stacks
from ostler.daemon.reload_verdict import shown
from ostler.daemon.startup.step_tracker import TIMEOUT_EXTENSION, StepTracker
from ostler.errors import join_words
from ostler.time_text import remove_duration
from ostler.types import ServiceState

if TYPE_CHECKING:
    from ostler.reload_types import OptionChange
    from ostler.service import Service
    from ostler.service.service_group import ServiceGroup
    from ostler.service.state_tracker import StateTracker
    from ostler.systemd import ServiceNotifier

_log = logging.getLogger(__name__)
_STATUS_INTERVAL = 1.0
"""Seconds between two STATUS lines while starting or stopping."""
_LOG_LEVEL_BY_STATE = {
    ServiceState.STARTING: logging.DEBUG,
    ServiceState.DEGRADED: logging.WARNING,
    ServiceState.FAILED: logging.ERROR,
}


class ProgressReporter:
    """Reports what is waited for while the daemon starts and stops, and the state of its services. On the loop.

    Args:
        notifier: Notifies systemd.
        step_tracker: The current step of the start or stop.
        state_tracker: The state of the daemon: degraded while a service has failed.
        group: Returns the services; None before they exist.
        is_up: Returns whether the start has finished and no stop was requested: only then STATUS follows the services.
        pending_restart: Returns the changes that wait for a new process.
        mode: What STATUS begins with: `safe mode`; empty for nothing.
    """

    def __init__(
        self,
        notifier: ServiceNotifier,
        step_tracker: StepTracker,
        state_tracker: StateTracker,
        group: Callable[[], ServiceGroup | None],
        is_up: Callable[[], bool],
        pending_restart: Callable[[], Sequence[OptionChange]] = list,
        *,
        mode: str = "",
    ) -> None:
        self._mode = f"{mode}: " if mode else ""
        self._notifier = notifier
        self._step_tracker = step_tracker
        self._state_tracker = state_tracker
        self._group = group
        self._is_up = is_up
        self._pending_restart = pending_restart

    def _services(self) -> Iterable[Service]:
        return self._group() or ()

    def summary(self) -> str:
        """Return one line on the state of the services."""
        rows = [f"{service.topic} {service.state_tracker.state}" for service in self._services()]
        return f"{self._mode}{', '.join(rows) or 'no services are configured'}{self.pending_text()}"

    def pending_text(self) -> str:
        """Return what waits for a new process, for the end of a STATUS line; empty when nothing does."""
        waiting = [
            f"{each.path} ({each.old_text or shown(each.old)} -> {each.new_text or shown(each.new)})"
            for each in self._pending_restart()
        ]
        return f"; restart needed for {join_words(waiting)}" if waiting else ""

    async def report_start(self) -> None:
        """Report what the start waits for, and ask for more time, for as long as the daemon is starting."""
        while self._state_tracker.state is ServiceState.STARTING:
            group = self._group()
            waiting = (group.start_waits_for() if group is not None else []) + self._current_steps()
            text = f"starting, waiting for {'; '.join(waiting)}" if waiting else "starting"
            self._notifier.extend_timeout(TIMEOUT_EXTENSION, text)
            await asyncio.sleep(_STATUS_INTERVAL)

    async def report_stop(self) -> None:
        """Report what the stop waits for, and ask for more time, indefinitely."""
        said: set[str] = set()
        ticks = 0
        while True:
            left = self._stop_waits_for()
            text = f"stopping, waiting for {'; '.join(left)}" if left else "stopping"
            self._notifier.extend_timeout(TIMEOUT_EXTENSION, text)
            kinds = {remove_duration(line) for line in left} if ticks else set()
            if news := kinds - said:  # each is logged once, when it has lasted for a second
                said |= news
                _log.info("stopping, waiting for %s", "; ".join(sorted(news)))
            ticks += 1
            await asyncio.sleep(_STATUS_INTERVAL)

    def _stop_waits_for(self) -> list[str]:
        lines = [line for service in self._services() for line in service.in_progress()]
        lines += [f"{each.topic}: {each.step}" for each in self._services() if each.step.startswith("stopping ")]
        return lines + self._current_steps()

    def _current_steps(self) -> list[str]:
        step = self._step_tracker.current_step
        return [step] if step else []

    def on_service_change(self, service: Service) -> None:
        """Log the new state of a service, and report it in the state of the daemon and in STATUS."""
        state, why = service.state_tracker.state, service.state_tracker.why
        text = f"service {service.topic} is {state}{f': {why}' if why else ''}"
        extra = log.extra(service=service.topic)
        if f"service-{state}" in log.MESSAGE_IDS:
            extra |= log.message_id(f"service-{state}")
        _log.log(_LOG_LEVEL_BY_STATE.get(state, logging.INFO), "%s", text, extra=extra)
        self._state_tracker.set_problem(f"service {service.topic}", text if state is ServiceState.FAILED else "")
        if self._is_up():
            self._notifier.status(self.summary())

    def on_liveness_lost(self, text: str) -> None:
        """Report why the watchdog is not pinged, with the stacks of all threads in the log."""
        self._notifier.status(f"unhealthy, withholding the watchdog ping: {text}")
        stacks = format_dump(thread_stacks())
        extra = log.message_id("watchdog") | log.detail(stacks)
        _log.critical("withholding the watchdog ping: %s", text, extra=extra)

    def on_liveness_recovered(self) -> None:
        """Report the state of the services again."""
        self._notifier.status(self.summary())
