"""What `self.periodic` of a manager offers; the periodic tasks themselves are in `ostler.periodic_tasks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from ostler.errors import Conflict


class PeriodicHandle(Protocol):
    """A periodic task that was added."""

    name: str

    def remove(self) -> bool:
        """Remove the task; returns False when it was removed or replaced before. Any thread."""
        ...


class PeriodicRegistry(Protocol):
    """Adds and removes periodic tasks while the manager runs. Any thread.

    They run while the service is up, as those with `@periodic` do, and are listed with them. They stay at a reload
    (options that they name are read again) and when a drain is undone, and end with the service: the next start begins
    without them, and the manager adds them again.
    """

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
        missed: Literal["", "run once", "skip"] = "",
        time_limit: float | str = 0.0,
    ) -> PeriodicHandle:
        """Add a periodic task, `function(ctx)`; the other arguments are those of `@periodic`.

        Raises:
            ContractError: It cannot run with these arguments.
            InvalidInput: The name is not valid.
            Conflict: There is a task of this name, there are too many, or the service is being stopped.
        """
        ...

    def remove(self, name: str) -> bool:
        """Remove a task that was added; returns whether there was one.

        A run in progress is cancelled by its context, and ends as it will.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of the tasks that were added, sorted."""
        ...


class _NoRegistry:
    def add(self, name: str, _function: Callable[..., Any], **_settings: Any) -> PeriodicHandle:
        raise Conflict(f"periodic task {name} was not added: this manager has no service")

    def remove(self, _name: str) -> bool:
        return False

    def names(self) -> list[str]:
        return []


NO_PERIODIC_REGISTRY = cast(PeriodicRegistry, _NoRegistry())
"""Refuses every task: for a manager that was created without a service."""
