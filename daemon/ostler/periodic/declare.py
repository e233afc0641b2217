"""`@periodic`: which methods of a manager run by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__ostler_periodic__"


class Periodic(msgspec.Struct, frozen=True):
    """What `@periodic` said; see there."""

    spacing: float | str
    cron: str
    run_at_once: bool
    jitter: float
    enabled: bool | str
    name: str


def periodic(
    *,
    spacing: float | str = 60.0,
    cron: str = "",
    run_at_once: bool = False,
    jitter: float = 0.0,
    enabled: bool | str = True,
    name: str = "",
) -> Callable[[F], F]:
    """Have a manager's method run again and again while its service is up.

    The method takes `ctx: Context`. A `def` runs in the service's pool, an `async def` on the loop. A run that raises
    is logged and counted, and the next one comes at its time; a run slower than the spacing delays its own next run
    only, and never runs twice at once.

    Args:
        spacing: Seconds from start to start, or the name of an option that holds them (a reload changes it).
        cron: A cron expression in local time instead of a spacing. When clocks change, a task that names every hour
            (`*/15 * * * *`) goes by elapsed time; any other runs once at each local time that it names: the first of
            two, and once right after a gap for what is skipped there.
        run_at_once: Whether the first run comes at the start of the service, not one spacing later.
        jitter: A part of the spacing, 0 to 1, by which runs are spread at random, so that a fleet is not in step.
        enabled: False, or the name of an option that says whether the task runs.
        name: Another name than the method's.
    """
    mark = Periodic(spacing, cron, run_at_once, jitter, enabled, name)

    def apply(method: F) -> F:
        setattr(method, _MARK, msgspec.structs.replace(mark, name=name or method.__name__))
        return method

    return apply


def periodic_of(method: object) -> Periodic | None:
    """Return what `@periodic` said of a method, None for one that is not periodic."""
    if isinstance(method, staticmethod | classmethod):  # looked up in a class, and not on it
        method = method.__func__
    found = getattr(method, _MARK, None)
    return found if isinstance(found, Periodic) else None
