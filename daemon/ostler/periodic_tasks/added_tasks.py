"""Periodic tasks that a manager adds and removes while it runs: `self.periodic`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ostler.bounds import NAME_LIMIT
from ostler.errors import Conflict, ContractError, InvalidInput, check_length, error_line
from ostler.periodic_tasks.decorator import Missed, PeriodicSettings
from ostler.periodic_tasks.task import PeriodicTask
from ostler.periodic_tasks.task_checks import signature_fault

MAX_ADDED_TASKS = 20_000
"""The most tasks that one service may add."""


class TaskDefinition(NamedTuple):
    """A task that was added: what is called, and when."""

    function: Callable[..., Any]
    settings: PeriodicSettings


class AddedTask:
    """A periodic task that a manager has added; `self.periodic.add` returns it.

    Args:
        name: The name of the task.
        remove: Removes it.
    """

    def __init__(self, name: str, remove: Callable[[], bool]) -> None:
        self.name = name
        self._remove = remove

    def remove(self) -> bool:
        """Remove the task; returns False when it was removed or replaced before. Any thread."""
        return self._remove()


class AddedTasks:
    """The periodic tasks that one manager adds while it runs. All methods are for any thread.

    They run while the service is up, as those with `@periodic` do, and are listed with them. They stay at a reload
    (options that they name are read again) and when a drain is undone, and end with the service: the next start begins
    without them, and the manager adds them again.

    Args:
        service: The topic.
        options: Returns the service's options in effect.
        declared: The names of the tasks with `@periodic`.
        on_change: Called on any thread after a change.
        limit: The most tasks.
    """

    def __init__(
        self,
        service: str,
        options: Callable[[], Any],
        declared: frozenset[str] = frozenset(),
        on_change: Callable[[], None] = lambda: None,
        limit: int = MAX_ADDED_TASKS,
    ) -> None:
        self._service = service
        self._options = options
        self._declared = declared
        self._on_change = on_change
        self._limit = limit
        self._lock = threading.Lock()
        self._definitions: dict[str, TaskDefinition] = {}
        self._is_closed = False

    def add(  # noqa: PLR0913 - each is a word of its own
        self,
        name: str,
        function: Callable[..., Any],
        *,
        spacing: float | str = 60.0,
        cron: str = "",
        run_at_once: bool = False,
        jitter: float = 0.0,
        enabled: bool | str = True,
        window: str = "",
        missed: Missed = "",
        time_limit: float | str = 0.0,
    ) -> AddedTask:
        """Add a periodic task; it runs from the end of the start on, or from now.

        Args:
            name: Its name, as `ostler periodic list` shows it; the record of an earlier task of this name goes on.
            function: What is called with `ctx: Context`: a `def` in the service's pool, an `async def` on the loop.
            spacing: See `ostler.periodic`, as for the others.
            cron: See there.
            run_at_once: See there.
            jitter: See there.
            enabled: See there.
            window: See there.
            missed: See there.
            time_limit: See there.

        Raises:
            ContractError: It cannot run with these arguments.
            InvalidInput: The name is not valid.
            Conflict: There is a task of this name, there are too many, or the service is being stopped.
        """
        settings = PeriodicSettings(spacing, cron, run_at_once, jitter, enabled, name, window, missed, time_limit)
        self._check(name, function, settings)
        definition = TaskDefinition(function, settings)
        with self._lock:
            self._check_room(name)
            self._definitions[name] = definition
        self._on_change()
        return AddedTask(name, lambda: self._remove(name, definition))

    def remove(self, name: str) -> bool:
        """Remove a task that was added; its run in progress is cancelled by its context, and ends as it will.

        Returns:
            Whether there was one.
        """
        return self._remove(name, None)

    def names(self) -> list[str]:
        """Return the names of the tasks that were added, sorted."""
        with self._lock:
            return sorted(self._definitions)

    def definitions(self) -> Sequence[TaskDefinition]:
        """Return the tasks; for the scheduler."""
        with self._lock:
            return list(self._definitions.values())

    def close(self) -> None:
        """Remove all tasks, and refuse further ones: the service is being stopped."""
        with self._lock:
            self._is_closed = True
            self._definitions.clear()
        self._on_change()

    def _remove(self, name: str, definition: TaskDefinition | None) -> bool:
        with self._lock:
            found = self._definitions.get(name)
            if found is None or (definition is not None and found is not definition):
                return False
            del self._definitions[name]
        self._on_change()
        return True

    def _check(self, name: str, function: Callable[..., Any], settings: PeriodicSettings) -> None:
        if not name or not name.isprintable():
            raise InvalidInput(f"{name!r} is not a valid name of a periodic task", service=self._service)
        check_length("the name of a periodic task", name, NAME_LIMIT)
        try:
            PeriodicTask(self._service, function, settings, self._options())
        except (TypeError, ValueError, OverflowError) as error:
            what = f"the periodic task {name} of {self._service} cannot run: {error_line(error)}"
            raise ContractError(what, service=self._service, task=name) from None
        if fault := signature_fault(None, function, is_bound=True):
            raise ContractError(f"the periodic task {name} of {self._service} cannot run: {fault}", task=name)

    def _check_room(self, name: str) -> None:
        if self._is_closed:
            raise Conflict(f"service {self._service} is being stopped: {name} was not added", service=self._service)
        if name in self._declared or name in self._definitions:
            raise Conflict(
                f"service {self._service} has a periodic task {name} already",
                hint="remove it before, or choose another name",
                service=self._service,
            )
        if len(self._definitions) >= self._limit:
            raise Conflict(
                f"service {self._service} has added {self._limit} periodic tasks, the most there may be",
                hint="remove some with `self.periodic.remove`, or do the work of many in one task",
                service=self._service,
            )
