"""A manager with ten thousand periodic tasks; a module of its own, for they weigh some megabytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ostler import Context, Manager, exposed, periodic

TASKS = 10_000
SPACING = 60.0


def _sync_task(number: int) -> Callable[..., Any]:
    def run(self: Any, ctx: Context) -> None:
        self.starts.append((number, time.time()))

    return run


def _async_task(number: int) -> Callable[..., Any]:
    async def run(self: Any, ctx: Context) -> None:
        self.starts.append((number, time.time()))

    return run


def task_functions() -> Iterator[Callable[..., Any]]:
    """Yield what the tasks do, by number: half of them on the loop and half in the pool, each once a minute."""
    for number in range(TASKS):
        yield (_async_task if number % 2 else _sync_task)(number)


def _with_tasks(kind: type[Manager]) -> type[Manager]:
    for number, task in enumerate(task_functions()):
        task.__name__ = f"task{number}"
        setattr(kind, task.__name__, periodic(spacing=SPACING)(task))
    return kind


@_with_tasks
class PeriodicManager(Manager):
    """Has ten thousand periodic tasks, and remembers when each began."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.starts: list[tuple[int, float]] = []

    @exposed(role="operator", changes=False)
    async def started(self, ctx: Context) -> list[tuple[int, float]]:
        """Return when tasks began since this was last asked: number and wall time."""
        starts, self.starts = self.starts, []
        return starts
