"""What a manager runs on its own behalf: periodic tasks that it adds, background tasks, and event handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ostler.aio import LoopQueue
from ostler.aio.background_tasks import BackgroundTasks
from ostler.clock import Clock
from ostler.periodic_tasks import PeriodicScheduler
from ostler.periodic_tasks.added_tasks import AddedTasks
from ostler.periodic_tasks.task_checks import declared_names
from ostler.service.service_events import ServiceEvents
from ostler.service.state_tracker import StateTracker

_PREFIXES = ("periodic task ", "background task ", "event handler ")


class OwnedWork:
    """The work of one manager that no request asked for, from the start of its service to the stop. On the loop.

    Args:
        topic: The topic of the service.
        manager: The manager's class.
        options: Returns its options in effect.
        scheduler: Runs its periodic tasks.
        loop_queue: Hands work to the loop.
        clock: The source of time.
        state: Where its problems are shown.
        event_handlers: Calls its event handlers.
    """

    def __init__(
        self,
        topic: str,
        manager: Any,
        options: Callable[[], Any],
        *,
        scheduler: PeriodicScheduler,
        loop_queue: LoopQueue,
        clock: Clock,
        state: StateTracker,
        event_handlers: ServiceEvents,
    ) -> None:
        self._topic = topic
        self._scheduler = scheduler
        self._loop_queue = loop_queue
        self._state = state
        self._event_handlers = event_handlers
        self.periodic = AddedTasks(topic, options, declared_names(manager), self._on_periodic_change)
        self.background = BackgroundTasks(
            topic, loop_queue, self._on_background_change, monotonic=clock.monotonic, wall=clock.wall
        )

    def update_problems(self) -> None:
        """Show which of its tasks and handlers are failing, slow or hung, and no longer those that work again."""
        tasks = self._scheduler.unhealthy_tasks(self._topic)
        found = {periodic_key(name): health.text for name, health in tasks.items()}
        found.update({f"background task {name}": text for name, text in self.background.problems().items()})
        found.update({event_handler_key(name): text for name, text in self._event_handlers.unhealthy().items()})
        for key in self._state.problems:
            if key not in found and key.startswith(_PREFIXES):
                self._state.set_problem(key, "")
        for key, text in found.items():
            self._state.set_problem(key, text)

    async def stop(self, timeout: float) -> list[str]:
        """End its background tasks, and refuse new work; return what had not ended in time, a line each.

        Args:
            timeout: Seconds to wait.
        """
        self.periodic.close()
        return await self.background.stop(timeout)

    def _on_periodic_change(self) -> None:
        self._loop_queue.post(lambda: self._scheduler.sync_added(self._topic))

    def _on_background_change(self) -> None:
        self._loop_queue.post(self.update_problems)


def periodic_key(task: str) -> str:
    """Return under which key the problem of a periodic task is shown in the evidence of its service."""
    return f"periodic task {task}"


def event_handler_key(name: str) -> str:
    """Return under which key the problem of an event handler is shown in the evidence of its service."""
    return f"event handler {name}"
