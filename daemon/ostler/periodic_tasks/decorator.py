"""`@periodic`: marks methods of a manager that run periodically."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

F = TypeVar("F", bound=Callable[..., Any])
Missed = Literal["", "run once", "skip"]
_SETTINGS_ATTRIBUTE = "__ostler_periodic__"


class PeriodicSettings(msgspec.Struct, frozen=True):
    """The arguments of `@periodic`; see there."""

    spacing: float | str
    cron: str
    run_at_once: bool
    jitter: float
    enabled: bool | str
    name: str
    window: str = ""
    missed: str = ""
    time_limit: float | str = 0.0


def periodic(  # noqa: PLR0913 - each is a word of its own
    *,
    spacing: float | str = 60.0,
    cron: str = "",
    run_at_once: bool = False,
    jitter: float = 0.0,
    enabled: bool | str = True,
    name: str = "",
    window: str = "",
    missed: Missed = "",
    time_limit: float | str = 0.0,
) -> Callable[[F], F]:
    """Run a manager's method periodically while its service is up.

    The method takes `ctx: Context`. A `def` runs in the service's pool, an `async def` on the loop. A run that raises
    is logged and counted, and the next one comes at its time; a run slower than the spacing delays its own next run
    only, and never runs twice at once.

    Args:
        spacing: Seconds from start to start, or the name of an option that holds them (a reload changes it).
        cron: A cron expression in local time instead of a spacing, or the name of an option that holds one (empty: the
            task does not run). When clocks change, a task that matches every hour (`*/15 * * * *`) follows elapsed
            time; any other runs once at each matching local time: at the first of two, and once right after a gap for
            the times in it.
        run_at_once: Whether the first run is at the start of the service, not one spacing later.
        jitter: A fraction of the spacing, 0 to 1, by which runs are delayed at random, so that hosts are not in step.
        enabled: False, or the name of an option that says whether the task runs.
        name: The name of the task; by default the method's.
        window: The times of day, in local time, between which runs may start: `01:00-05:00`, over midnight
            `22:00-06:00`; or the name of an option that holds them (empty: at any time).
        missed: What happens to runs that were due while the daemon was down or outside the window: `run once` runs the
            task once for all of them, as soon as it may; `skip` waits for the next regular time, which the log says.
            By default `run once` for a spacing, `skip` for cron times.
        time_limit: Seconds that a run may take, or the name of an option that holds them; 0 for no limit. It is the
            deadline of the run's context (`ctx.check()`); a run that goes on is shown as hung, its service is degraded.
    """
    mark = PeriodicSettings(spacing, cron, run_at_once, jitter, enabled, name, window, missed, time_limit)

    def apply(method: F) -> F:
        setattr(method, _SETTINGS_ATTRIBUTE, msgspec.structs.replace(mark, name=name or method.__name__))
        return method

    return apply


def periodic_settings(method: object) -> PeriodicSettings | None:
    """Return the `@periodic` mark of a method, None for one that is not periodic."""
    if isinstance(method, staticmethod | classmethod):  # from the class's `__dict__`, not bound
        method = method.__func__
    found = getattr(method, _SETTINGS_ATTRIBUTE, None)
    return found if isinstance(found, PeriodicSettings) else None
