"""One periodic task: its due time and the record of its runs."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ostler.errors import ContractError
from ostler.periodic_tasks.decorator import PeriodicSettings, periodic_settings

if TYPE_CHECKING:
    from ostler.periodic_tasks.cron import CronSchedule

_CRON_POLL_INTERVAL = 60.0
"""The longest sleep, in seconds, before a cron task checks the wall clock again, which may have been set."""
_CRON_TOLERANCE = 0.001
_MAX_LOGGED_ERRORS = 16
_QUICK_RUN_TIME = 0.005


class PeriodicTask:
    """A periodic method of a manager; holds the plan and the record, runs nothing itself.

    `base_time` is the loop's time from which runs are counted: without jitter a run is due then, with jitter a little
    later. The next base is computed from the base, not from the run, so that nothing drifts.

    Args:
        service: The topic of the service it belongs to.
        method: The bound method.
        settings: The mark of `@periodic`.
        options: The service's options, for spacing and enabled.
    """

    __slots__ = (
        "base_time",
        "context",
        "cron",
        "cron_done",
        "cron_from",
        "cron_offset",
        "cron_wall",
        "due_at",
        "enabled",
        "errors",
        "heap_entry",
        "is_async",
        "is_late",
        "is_paused",
        "is_removed",
        "is_running",
        "last_error",
        "last_run",
        "last_seconds",
        "logged_errors",
        "method",
        "name",
        "postponed_reason",
        "running_since",
        "runs",
        "service",
        "settings",
        "spacing",
    )  # fmt: skip

    def __init__(self, service: str, method: Callable[..., Any], settings: PeriodicSettings, options: Any) -> None:
        self.service = service
        self.method = method
        self.settings = settings
        self.name = settings.name
        self.is_async = inspect.iscoroutinefunction(method)
        self.spacing = 0.0
        self.enabled = True
        self.is_paused = False
        self.is_removed = False
        self.is_running = False
        self.running_since = 0.0
        self.context: Any = None
        self.base_time = self.due_at = 0.0
        self.cron: CronSchedule | None = None
        self.cron_from = self.cron_wall = self.cron_done = 0.0
        self.cron_offset = 0
        self.postponed_reason = ""
        self.heap_entry = 0
        self.runs = self.errors = 0
        self.last_run = self.last_seconds = 0.0
        self.last_error = ""
        self.logged_errors: set[str] = set()
        self.is_late = False
        self.apply_options(options)

    def apply_options(self, options: Any) -> None:
        """Take spacing and enabled from the service's options.

        Raises:
            ContractError: An option is missing, or has an invalid value.
        """
        spacing, enabled = self.settings.spacing, self.settings.enabled
        if isinstance(spacing, str):
            spacing = self._option(options, spacing, "spacing")
        if isinstance(enabled, str):
            enabled = self._option(options, enabled, "switch")
        if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not 0 < spacing < math.inf:
            raise self._contract_error(f"its spacing is {spacing!r}, it must be a number of seconds above 0")
        if not 0 <= self.settings.jitter <= 1:
            raise self._contract_error(
                f"its jitter is {self.settings.jitter!r}, it must be a fraction of the spacing from 0 to 1"
            )
        if self.settings.cron and self.cron is None:
            self.cron = self._parse_cron()
        self.spacing, self.enabled = float(spacing), bool(enabled)

    def cancel_run(self) -> None:
        """Cancel the context of a run in progress. Any thread."""
        if (context := self.context) is not None:
            context.cancel()

    @property
    def is_active(self) -> bool:
        """Whether it runs at its due times now."""
        return self.enabled and not self.is_paused and not self.is_removed

    @property
    def spacing_text(self) -> str:
        """The spacing for messages."""
        return self.settings.cron or f"{self.spacing:g} s"

    def plan_first(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the first run is due; one that ran before a restart continues from there."""
        if self.settings.run_at_once:
            self.base_time = self.due_at = now
            self.cron_wall = wall
            return
        if self.settings.cron:
            self._plan_cron(now, wall, wall)
            return
        ago = wall - self.last_run
        # Only if plausible by the wall clock: a last run in the future, or long ago, is ignored.
        rest = self.spacing - ago if self.last_run and ago >= 0 else self.spacing
        self._set_due(now + max(0.0, rest), chance)

    def plan_next(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the next run is due: the first moment after `now` on the grid of the spacing or cron text."""
        if self.settings.cron:
            # Never the same time twice, though the timer may have fired slightly before it.
            self.cron_done = self.cron_wall
            self._plan_cron(now, wall, max(wall, self.cron_wall))
            return
        missed = max(0, math.floor((now - self.base_time) / self.spacing))
        self._set_due(self.base_time + (missed + 1) * self.spacing, chance)

    def plan_resumed(self, now: float, wall: float, chance: random.Random) -> None:
        """Set the next run of a resumed task: its next regular time."""
        if self.settings.cron:
            self._plan_cron(now, wall, wall)
        elif self.base_time <= now:
            self.plan_next(now, wall, chance)

    def plan_at(self, due: float) -> None:
        """Set the due time of a task whose regular time cannot be determined."""
        self.base_time = self.due_at = due

    def check_cron(self, now: float, wall: float) -> bool:
        """Return whether a cron task is due by the wall clock; otherwise set when to check again.

        Raises:
            ValueError: The clock was set to a time without a next due time.
        """
        rest = self.cron_wall - wall
        if rest <= _CRON_TOLERANCE:
            return True
        if wall < self.cron_from - _CRON_POLL_INTERVAL:
            # The clock was set back, by more than NTP slews: the times between are repeated.
            after = self.cron.after_set_back(wall, self.cron_done) if self.cron else wall
            self.cron_from, self.cron_wall = wall, self._next_cron(after)
            rest = self.cron_wall - wall
        elif self.cron and self.cron.offset_at(self.cron_wall) != self.cron_offset:
            # The time zone or its rules have changed: the planned time is another local time now.
            self.cron_from, self.cron_wall = wall, self._next_cron(wall)
            rest = self.cron_wall - wall
        self.base_time = self.due_at = now + min(rest, _CRON_POLL_INTERVAL)
        return False

    def plan_new_spacing(self, before: float, now: float, chance: random.Random) -> None:
        """Apply a changed spacing: the next run is one new spacing after the last base, or now."""
        self._set_due(max(now, self.base_time - before + self.spacing), chance)

    @property
    def is_quick(self) -> bool:
        """Whether its runs have been too short to be worth a thread of their own."""
        return self.runs > 0 and self.last_seconds < _QUICK_RUN_TIME

    @property
    def is_in_time(self) -> bool:
        """Whether its last run took less than its spacing; of a cron task, which has none, every run that has ended."""
        return bool(self.settings.cron) or self.last_seconds < self.spacing

    def next_run_at(self, now: float, wall: float) -> float:
        """Return the wall time of the next run, 0 when none is planned."""
        if not self.is_active:
            return 0.0
        return self.cron_wall if self.settings.cron and not self.postponed_reason else wall + self.due_at - now

    def is_new_error(self, error: str) -> bool:
        """Return whether this error was not logged since the last good run; the number of different ones is limited."""
        if error in self.logged_errors or len(self.logged_errors) >= _MAX_LOGGED_ERRORS:
            return False
        self.logged_errors.add(error)
        return True

    def _plan_cron(self, now: float, wall: float, after: float) -> None:
        self.cron_from, self.cron_wall = wall, self._next_cron(after)
        if self.check_cron(now, wall):  # it is due now
            self.base_time = self.due_at = now + _CRON_TOLERANCE

    def _set_due(self, base: float, chance: random.Random) -> None:
        self.base_time = base
        self.due_at = base + self.spacing * self.settings.jitter * chance.random() if self.settings.jitter else base

    def _next_cron(self, wall: float) -> float:
        cron = self.cron or self._parse_cron()
        due = cron.next_due(wall)
        self.cron_offset = cron.offset_at(due)
        return due

    def _parse_cron(self) -> CronSchedule:
        from ostler.periodic_tasks.cron import CronSchedule  # 1 ms: only for cron times

        try:
            return CronSchedule(self.settings.cron)
        except ValueError as error:
            raise self._contract_error(f"its cron expression {self.settings.cron!r} {error}") from None

    def _option(self, options: Any, name: str, what: str) -> Any:
        try:
            return getattr(options, name)
        except AttributeError:
            raise self._contract_error(f"its {what} is the option {name!r}, which the service does not have") from None

    def _contract_error(self, what: str) -> ContractError:
        return ContractError(
            f"the periodic task {self.name} of {self.service} cannot run: {what}",
            service=self.service,
            task=self.name,
        )


def collect_tasks(service: str, manager: object, options: Any) -> Iterator[PeriodicTask]:
    """Return the periodic tasks of a manager, sorted by name of their methods.

    A method that overrides a periodic one without a mark of its own keeps the mark.

    Raises:
        ContractError: A task names an option that does not exist, or two have the same name.
    """
    kind = type(manager)
    seen: set[str] = set()
    for attribute in sorted({name for each in kind.__mro__ for name in vars(each)}):
        mark = next((found for each in kind.__mro__ if (found := periodic_settings(vars(each).get(attribute)))), None)
        if mark is None:
            continue
        if mark.name in seen:
            raise ContractError(
                f"two periodic tasks of {service} have the name {mark.name}",
                hint='choose another `name="…"` for one of them',
            )
        seen.add(mark.name)
        yield PeriodicTask(service, getattr(manager, attribute), mark, options)
