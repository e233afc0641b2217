"""One periodic task: its due time and the record of its runs."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ostler.config.units import format_seconds
from ostler.errors import ContractError
from ostler.periodic_tasks.decorator import PeriodicSettings, periodic_settings

if TYPE_CHECKING:
    from ostler.periodic_tasks.cron import CronSchedule
    from ostler.periodic_tasks.window import DailyWindow
    from ostler.store.records.periodic_records import Pause, RunEntry

_CRON_POLL_INTERVAL = 60.0
"""The longest sleep, in seconds, before a cron task checks the wall clock again, which may have been set."""
_CRON_TOLERANCE = 0.001
_MAX_LOGGED_ERRORS = 16
_MAX_SEARCH_STEPS = 400
"""The most due times among which one within a window is looked for: more than a year of a task of each day."""
_QUICK_RUN_TIME = 0.005


class PeriodicTask:
    """A periodic method of a manager; holds the plan and the record, runs nothing itself.

    `base_time` is the loop's time from which runs are counted: without jitter a run is due then, with jitter a little
    later. The next base is computed from the base, not from the run, so that nothing drifts.

    Args:
        service: The topic of the service it belongs to.
        method: The bound method.
        settings: The mark of `@periodic`.
        options: The service's options, for what the settings name.
        is_added: Whether it was added while the service was running, not declared with `@periodic`.
    """

    __slots__ = (
        "base_time",
        "context",
        "cron",
        "cron_done",
        "cron_from",
        "cron_offset",
        "cron_text",
        "cron_wall",
        "due_at",
        "due_since",
        "enabled",
        "errors",
        "failures",
        "heap_entry",
        "is_added",
        "is_async",
        "is_held",
        "is_late",
        "is_removed",
        "is_running",
        "last_due",
        "last_error",
        "last_run",
        "last_seconds",
        "lateness",
        "logged_errors",
        "method",
        "missed_at",
        "name",
        "pause",
        "pending_due",
        "postponed_reason",
        "predecessor",
        "running_since",
        "runs",
        "service",
        "settings",
        "skipped",
        "spacing",
        "started_at",
        "time_limit",
        "unsaved_runs",
        "window",
        "window_text",
    )  # fmt: skip

    def __init__(
        self,
        service: str,
        method: Callable[..., Any],
        settings: PeriodicSettings,
        options: Any,
        *,
        is_added: bool = False,
    ) -> None:
        self.is_added = is_added
        self.service = service
        self.method = method
        self.settings = settings
        self.name = settings.name
        self.is_async = is_coroutine_function(method)
        self.spacing = 0.0
        self.enabled = True
        self.pause: Pause | None = None
        self.is_removed = False
        self.is_running = False
        self.running_since = self.started_at = 0.0
        self.context: Any = None
        self.base_time = self.due_at = 0.0
        self.cron: CronSchedule | None = None
        self.cron_text = self.window_text = ""
        self.window: DailyWindow | None = None
        self.is_held = False
        self.time_limit = 0.0
        self.last_due = self.pending_due = self.missed_at = 0.0
        self.predecessor: PeriodicTask | None = None
        self.unsaved_runs: list[RunEntry] = []
        self.cron_from = self.cron_wall = self.cron_done = 0.0
        self.cron_offset = 0
        self.postponed_reason = ""
        self.heap_entry = 0
        self.runs = self.errors = self.failures = 0
        self.last_run = self.last_seconds = 0.0
        self.last_error = ""
        self.logged_errors: set[str] = set()
        self.is_late = False
        self.due_since = self.lateness = 0.0
        self.skipped = 0
        self.apply_options(options)

    def apply_options(self, options: Any) -> None:
        """Take spacing, cron times, window, limit and enabled from the service's options.

        Raises:
            ContractError: An option is missing, or has an invalid value.
        """
        settings = self.settings
        spacing = self._seconds(options, settings.spacing, "spacing")
        limit = self._seconds(options, settings.time_limit, "time limit", minimum="0 or more")
        enabled = settings.enabled
        if isinstance(enabled, str):
            enabled = self._option(options, enabled, "switch")
        if not 0 <= settings.jitter <= 1:
            raise self._contract_error(
                f"its jitter is {settings.jitter!r}, it must be a fraction of the spacing from 0 to 1"
            )
        if settings.missed not in ("", "run once", "skip"):
            raise self._contract_error(f"its `missed` is {settings.missed!r}, it must be 'run once' or 'skip'")
        self._apply_calendar(
            self._text(options, settings.cron, "cron time"), self._text(options, settings.window, "window")
        )
        self.spacing, self.time_limit = spacing, limit
        self.enabled = bool(enabled) and bool(self.cron_text or not settings.cron)

    def _apply_calendar(self, cron: str, window: str) -> None:
        if cron != self.cron_text:
            self.cron, self.cron_text = self._parse_cron(cron) if cron else None, cron
        if window != self.window_text:
            self.window, self.window_text = self._parse_window(window) if window else None, window

    def note_start(self, monotonic: float) -> None:
        """Record how late a run has started, unless an operator has asked for it. On the thread of the run."""
        if self.due_since:
            self.lateness, self.due_since = max(0.0, monotonic - self.due_since), 0.0

    def lateness_at(self, monotonic: float) -> float:
        """Return by how many seconds the last run came late, or one that is due and waits for a thread is late now."""
        due_since = self.due_since  # read once: the thread of the run changes it
        return max(0.0, monotonic - due_since) if due_since and self.is_running else self.lateness

    def cancel_run(self) -> None:
        """Cancel the context of a run in progress. Any thread."""
        if (context := self.context) is not None:
            context.cancel()

    @property
    def is_active(self) -> bool:
        """Whether it runs at its due times now."""
        return self.enabled and self.pause is None and not self.is_removed

    @property
    def has_calendar(self) -> bool:
        """Whether its runs depend on the wall clock: by cron times or a window."""
        return bool(self.settings.cron) or self.window is not None

    @property
    def runs_missed(self) -> bool:
        """Whether runs that were missed are made up for by one."""
        return (self.settings.missed or ("skip" if self.settings.cron else "run once")) == "run once"

    @property
    def spacing_text(self) -> str:
        """The spacing for messages."""
        if self.settings.cron:
            return self.cron_text or "never"
        return format_seconds(self.spacing)

    @property
    def plan_key(self) -> tuple[object, ...]:
        """What its due times follow from; a reload that changes it plans the task again."""
        return self.enabled, self.spacing, self.cron_text, self.window_text

    @property
    def is_blocked(self) -> bool:
        """Whether an earlier task of its name, which was removed, has not ended its run."""
        if self.predecessor is not None and not self.predecessor.is_running:
            self.predecessor = None
        return self.predecessor is not None

    def plan_first(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the first run is due; one that ran before a restart continues from there."""
        if self.settings.run_at_once:
            self.base_time = self.due_at = now
            self.cron_wall = wall
        elif self.settings.cron:
            self._plan_first_cron(now, wall)
        else:
            self._plan_first_spacing(now, wall, chance)

    def _plan_first_spacing(self, now: float, wall: float, chance: random.Random) -> None:
        ago = wall - self.last_run
        # Only if plausible by the wall clock: a last run in the future, or long ago, is ignored.
        rest = self.spacing - ago if self.last_run and ago >= 0 else self.spacing
        if rest < 0 and not self.runs_missed:
            self.missed_at = wall + rest
            rest %= self.spacing
        self._set_due(now + max(0.0, rest), chance)

    def _plan_first_cron(self, now: float, wall: float) -> None:
        done, self.cron_done = self.last_due, self.last_due
        if not done or not self.is_active:  # what is due while it is switched off is not missed
            self.last_due = wall
            self._plan_cron(now, wall, wall)
            return
        if done > wall:  # the clock was set back meanwhile
            self._plan_cron(now, wall, self._after_set_back(wall))
            return
        missed = self._next_cron(done)
        if missed >= wall:
            self._plan_cron(now, wall, done)
            return
        self.missed_at = missed
        if self.runs_missed:
            self.cron_from, self.cron_wall = wall, missed
            self.base_time = self.due_at = now
        else:
            self.last_due = wall
            self._plan_cron(now, wall, wall)

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
        self.is_held = False
        if self.settings.cron:
            self.last_due = max(self.last_due, wall)  # what was due meanwhile is not missed
            self._plan_cron(now, wall, wall)
        elif self.base_time <= now:
            self.plan_next(now, wall, chance)

    def plan_at(self, due: float) -> None:
        """Set the due time of a task whose regular time cannot be determined."""
        self.base_time = self.due_at = due

    def check_calendar(self, now: float, wall: float, chance: random.Random) -> bool:
        """Return whether a task whose entry is due may run by the wall clock; otherwise set when to check again.

        Raises:
            ValueError: There is no later time at which it may run.
        """
        if self.settings.cron and not self.is_held and not self.check_cron(now, wall):
            return False
        if self.window is None or self.window.contains(wall):
            self.is_held = False
            return True
        # No longer than this: the clock may be set meanwhile.
        rest = min(self.window.next_open(wall) - wall, _CRON_POLL_INTERVAL)
        if self.runs_missed:
            self.is_held = True
            self.plan_at(now + rest)
        elif self.settings.cron:
            self.plan_next(now, wall, chance)
            self.last_due = max(wall, self.last_due)
        else:
            steps = max(1, math.ceil((now + rest - self.base_time) / self.spacing))
            self._set_due(self.base_time + steps * self.spacing, chance)
        return False

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
            self.cron_from, self.cron_wall = wall, self._next_cron(self._after_set_back(wall))
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
        is_regular = self.settings.cron and not self.postponed_reason and not self.is_held
        due = self.cron_wall if is_regular else wall + self.due_at - now
        if self.window is None or self.window.contains(due):
            return due
        try:
            return self._next_in_window(due)
        except (ArithmeticError, OSError, ValueError):
            return 0.0

    def _next_in_window(self, due: float) -> float:
        """Return the first time from a due time on that is within the window."""
        assert self.window is not None  # noqa: S101 - asked by those who have seen it
        opens = self.window.next_open(due)
        if self.runs_missed:
            return opens
        for _ in range(_MAX_SEARCH_STEPS):
            due = self._next_regular(due, opens)
            if self.window.contains(due):
                return due
            opens = self.window.next_open(due)
        raise ValueError("none of its times is within its window")

    def _next_regular(self, due: float, opens: float) -> float:
        if self.cron is not None:
            return self.cron.next_due(opens - 1)
        return due + math.ceil((opens - due) / self.spacing) * self.spacing

    def check_window(self, wall: float) -> None:
        """Check that some of its regular times are within its window, if the others are skipped.

        Args:
            wall: A moment, in seconds since 1970, from which on there must be one.

        Raises:
            ValueError: There is none, as far as it was looked for.
        """
        if self.window is None or self.runs_missed or not self.enabled or self.cron is None:
            return
        due = self.cron.next_due(wall)
        if not self.window.contains(due):
            self._next_in_window(due)

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
        if self.cron is None:  # the option is empty: it is not active
            return wall + _CRON_POLL_INTERVAL
        due = self.cron.next_due(wall)
        self.cron_offset = self.cron.offset_at(due)
        return due

    def _after_set_back(self, wall: float) -> float:
        return self.cron.after_set_back(wall, self.cron_done) if self.cron else wall

    def _parse_cron(self, text: str) -> CronSchedule:
        from ostler.periodic_tasks.cron import CronSchedule  # 1 ms: only for cron times

        try:
            return CronSchedule(text)
        except ValueError as error:
            of_option = f" (option {self.settings.cron})" if text != self.settings.cron else ""
            raise self._contract_error(f"its cron expression {text!r}{of_option} {error}") from None

    def _parse_window(self, text: str) -> DailyWindow:
        from ostler.periodic_tasks.window import DailyWindow  # only for windows

        try:
            return DailyWindow(text)
        except ValueError as error:
            of_option = f" (option {self.settings.window})" if text != self.settings.window else ""
            raise self._contract_error(f"its window {text!r}{of_option} {error}") from None

    def _seconds(self, options: Any, value: float | str, what: str, minimum: str = "above 0") -> float:
        if isinstance(value, str):
            value = self._option(options, value, what)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
        if not is_number or (minimum == "above 0" and not value):
            raise self._contract_error(f"its {what} is {value!r}, it must be a number of seconds {minimum}")
        return float(value)

    def _text(self, options: Any, value: str, what: str) -> str:
        """Return a text, or the value of the option that it names: neither cron times nor windows are identifiers."""
        if not value.isidentifier():
            return value
        found = self._option(options, value, what)
        if not isinstance(found, str):
            raise self._contract_error(f"its {what} is the option {value!r}, which is not a text")
        return found.strip()

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


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether a function, a method or an object that can be called is `async def`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - its type is asked for


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
