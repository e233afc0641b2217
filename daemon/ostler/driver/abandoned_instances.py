"""The instances of a driver that were given up while calls hung in them."""

from __future__ import annotations

from ostler.driver.driver_executor import DriverExecutor, DriverLabel
from ostler.errors import Conflict
from ostler.types import DriverState

_MAX_ABANDONED = 4
"""The most instances of a driver that may hang after they were abandoned: each keeps its threads."""


class AbandonedInstances:
    """Counts the abandoned instances of one driver that still hang. The lock of the driver is held in all methods.

    Args:
        label: The driver.
    """

    def __init__(self, label: DriverLabel) -> None:
        self._label = label
        self._executors: list[DriverExecutor] = []

    def add(self, executor: DriverExecutor) -> None:
        """Keep the threads of an instance in mind until they return."""
        self._executors.append(executor)

    def count(self) -> int:
        """Return how many still hang, and forget the others."""
        self._executors = [executor for executor in self._executors if not executor.is_idle()]
        return len(self._executors)

    def check(self, state: DriverState, is_stopping: bool) -> None:
        """Refuse to abandon another one.

        Raises:
            Conflict: The driver is not stuck, or too many instances hang already.
        """
        label = self._label
        if is_stopping or state is not DriverState.STUCK:
            raise Conflict(
                f"{label} is {state}, only a stuck driver can be abandoned",
                hint=f"`ostler driver restart {label.topic}/{label.driver}` creates it again",
                driver=label.driver,
            )
        if (left := self.count()) >= _MAX_ABANDONED:
            raise Conflict(
                f"{left} earlier instances of {label} still hang; no further one is abandoned",
                hint="`ostler dump` shows where they hang; restart the daemon if they never return",
                driver=label.driver,
            )
