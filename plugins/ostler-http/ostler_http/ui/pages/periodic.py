"""Periodic tasks."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit


class PeriodicPage(Page):
    """All periodic tasks, those that are not well first."""

    path = "/periodic"
    title = "Periodic tasks"
    template = "periodic.html"
    methods = ("periodic_list",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the tasks."""
        tasks = await visit.call("periodic_list")
        tasks.sort(key=lambda task: (not task["health"], task["service"], task["task"]))
        return {"tasks": tasks}


class PeriodicTaskPage(Page):
    """One periodic task with its last runs."""

    path = "/periodic/{service}/{task}"
    title = "Periodic task"
    template = "periodic_task.html"
    methods = ("periodic_show",)
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the task and its runs, newest first."""
        names = visit.request.path_params
        found = await visit.call("periodic_show", {"service": names["service"], "task": names["task"]})
        return {
            "task": found["task"],
            "runs": list(reversed(found["runs"])),
            "title": f"{names['task']} of {names['service']}",
        }
