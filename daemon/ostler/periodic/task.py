"""One periodic task: when it is due, how its runs went."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ostler.errors import ContractError
from ostler.periodic.declare import Periodic, periodic_of

if TYPE_CHECKING:
    from ostler.periodic.cron import CronSchedule

_CRON_LOOK = 60.0
"""The longest sleep, in seconds, before a cron task looks at the wall clock again: somebody may have set it."""
_HAIR = 0.001
_KNOWN_ERRORS = 16
_QUICK = 0.005


class PeriodicTask:
    """A method of a manager that runs again and again; holds the plan and the record, runs nothing itself.

    `base` is the moment of the loop's time from which runs are counted: without jitter a run is due there, with jitter
    a little later. The next base is counted from the base, not from the run, so that nothing drifts.

    Args:
        service: The topic of the service it belongs to.
        method: The bound method.
        mark: What `@periodic` said.
        options: The service's options, for spacing and enabled.
    """

    __slots__ = (
        "base", "context", "cron", "cron_done", "cron_from", "cron_offset", "cron_wall", "due", "enabled", "entry",
        "errors", "is_async", "last_error", "last_run", "last_seconds", "late", "logged", "mark", "method", "name",
        "paused", "put_off", "removed", "running", "running_since", "runs", "service", "spacing",
    )  # fmt: skip

    def __init__(self, service: str, method: Callable[..., Any], mark: Periodic, options: Any) -> None:
        self.service = service
        self.method = method
        self.mark = mark
        self.name = mark.name
        self.is_async = inspect.iscoroutinefunction(method)
        self.spacing = 0.0
        self.enabled = True
        self.paused = False
        self.removed = False
        self.running = False
        self.running_since = 0.0
        self.context: Any = None
        self.base = self.due = 0.0
        self.cron: CronSchedule | None = None
        self.cron_from = self.cron_wall = self.cron_done = 0.0
        self.cron_offset = 0
        self.put_off = ""
        self.entry = 0
        self.runs = self.errors = 0
        self.last_run = self.last_seconds = 0.0
        self.last_error = ""
        self.logged: set[str] = set()
        self.late = False
        self.take(options)

    def take(self, options: Any) -> None:
        """Take spacing and enabled from the service's options.

        Raises:
            ContractError: An option is missing, or does not hold what is needed.
        """
        spacing, enabled = self.mark.spacing, self.mark.enabled
        if isinstance(spacing, str):
            spacing = self._option(options, spacing, "spacing")
        if isinstance(enabled, str):
            enabled = self._option(options, enabled, "switch")
        if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not 0 < spacing < math.inf:
            raise self._wrong(f"its spacing is {spacing!r}, it has to be seconds above 0")
        if not 0 <= self.mark.jitter <= 1:
            raise self._wrong(f"its jitter is {self.mark.jitter!r}, it has to be a part of the spacing from 0 to 1")
        if self.mark.cron and self.cron is None:
            self.cron = self._parse_cron()
        self.spacing, self.enabled = float(spacing), bool(enabled)

    def cancel_run(self) -> None:
        """Tell a run under way, by its context, that it is not wanted any more. Any thread."""
        if (context := self.context) is not None:
            context.cancel()

    @property
    def active(self) -> bool:
        """Whether it runs by itself now."""
        return self.enabled and not self.paused and not self.removed

    @property
    def spacing_text(self) -> str:
        """The spacing as people read it."""
        return self.mark.cron or f"{self.spacing:g} s"

    def plan_first(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the first run is due; one that ran before a restart goes on from there."""
        if self.mark.run_at_once:
            self.base = self.due = now
            self.cron_wall = wall
            return
        if self.mark.cron:
            self._plan_cron(now, wall, wall)
            return
        ago = wall - self.last_run
        # Only what the wall clock makes believable: a last run in the future, or long ago, says nothing.
        rest = self.spacing - ago if self.last_run and ago >= 0 else self.spacing
        self._due_at(now + max(0.0, rest), chance)

    def plan_next(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the next run is due: the first moment after `now` on the grid of the spacing or cron text."""
        if self.mark.cron:
            # Never the same moment twice, though the timer may have come a hair before it.
            self.cron_done = self.cron_wall
            self._plan_cron(now, wall, max(wall, self.cron_wall))
            return
        missed = max(0, math.floor((now - self.base) / self.spacing))
        self._due_at(self.base + (missed + 1) * self.spacing, chance)

    def plan_again(self, now: float, wall: float, chance: random.Random) -> None:
        """Set when the next run of a task is due that was off for a while: at its next regular time."""
        if self.mark.cron:
            self._plan_cron(now, wall, wall)
        elif self.base <= now:
            self.plan_next(now, wall, chance)

    def plan_later(self, due: float) -> None:
        """Set when the next run is due of a task whose regular time cannot be told."""
        self.base = self.due = due

    def look_at_cron(self, now: float, wall: float) -> bool:
        """Return whether a cron task is due by the wall clock; else set when to look again.

        Raises:
            ValueError: The clock was set to where no due time can be told.
        """
        rest = self.cron_wall - wall
        if rest <= _HAIR:
            return True
        if wall < self.cron_from - _CRON_LOOK:
            # The clock was set back, and by more than NTP slews: the moments between come once more.
            after = self.cron.after_set_back(wall, self.cron_done) if self.cron else wall
            self.cron_from, self.cron_wall = wall, self._next_cron(after)
            rest = self.cron_wall - wall
        elif self.cron and self.cron.offset_at(self.cron_wall) != self.cron_offset:
            # The machine got another zone, or the zone other rules: what was planned is another local time by now.
            self.cron_from, self.cron_wall = wall, self._next_cron(wall)
            rest = self.cron_wall - wall
        self.base = self.due = now + min(rest, _CRON_LOOK)
        return False

    def respaced(self, before: float, now: float, chance: random.Random) -> None:
        """Take a changed spacing into account: the next run comes one new spacing after the last base, or now."""
        self._due_at(max(now, self.base - before + self.spacing), chance)

    @property
    def is_quick(self) -> bool:
        """Whether it has shown that its runs are too short to be worth a thread of their own."""
        return self.runs > 0 and self.last_seconds < _QUICK

    @property
    def is_in_time(self) -> bool:
        """Whether its last run took less than its spacing; of a cron task, which has none, every run that has ended."""
        return bool(self.mark.cron) or self.last_seconds < self.spacing

    def next_wall(self, now: float, wall: float) -> float:
        """Return the wall time of the next run, 0 when none is planned."""
        if not self.active:
            return 0.0
        return self.cron_wall if self.mark.cron and not self.put_off else wall + self.due - now

    def is_news(self, error: str) -> bool:
        """Return whether this error has not been said since the last good run; a flood of different ones ends too."""
        if error in self.logged or len(self.logged) >= _KNOWN_ERRORS:
            return False
        self.logged.add(error)
        return True

    def _plan_cron(self, now: float, wall: float, after: float) -> None:
        self.cron_from, self.cron_wall = wall, self._next_cron(after)
        if self.look_at_cron(now, wall):  # it is due within a hair
            self.base = self.due = now + _HAIR

    def _due_at(self, base: float, chance: random.Random) -> None:
        self.base = base
        self.due = base + self.spacing * self.mark.jitter * chance.random() if self.mark.jitter else base

    def _next_cron(self, wall: float) -> float:
        cron = self.cron or self._parse_cron()
        due = cron.next(wall)
        self.cron_offset = cron.offset_at(due)
        return due

    def _parse_cron(self) -> CronSchedule:
        from ostler.periodic.cron import CronSchedule

        try:
            return CronSchedule(self.mark.cron)
        except ValueError as error:
            raise self._wrong(f"its cron text {self.mark.cron!r} {error}") from None

    def _option(self, options: Any, name: str, what: str) -> Any:
        try:
            return getattr(options, name)
        except AttributeError:
            raise self._wrong(f"its {what} is the option {name!r}, which the service does not have") from None

    def _wrong(self, what: str) -> ContractError:
        return ContractError(
            f"the periodic task {self.name} of {self.service} cannot run: {what}",
            service=self.service,
            task=self.name,
        )


def tasks_of(service: str, manager: object, options: Any) -> Iterator[PeriodicTask]:
    """Return the periodic tasks of a manager, sorted by name of their methods.

    A method that overrides a periodic one without a mark of its own keeps the mark.

    Raises:
        ContractError: A task names an option that is not there, or two have one name.
    """
    kind = type(manager)
    seen: set[str] = set()
    for attribute in sorted({name for each in kind.__mro__ for name in vars(each)}):
        mark = next((found for each in kind.__mro__ if (found := periodic_of(vars(each).get(attribute)))), None)
        if mark is None:
            continue
        if mark.name in seen:
            raise ContractError(
                f"two periodic tasks of {service} are named {mark.name}", hint='give one of them another `name="…"`'
            )
        seen.add(mark.name)
        yield PeriodicTask(service, getattr(manager, attribute), mark, options)
