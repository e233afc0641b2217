"""Operations: work that is stored and goes on after a restart."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit, safe_target

_STATES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled")
_LIMIT = 200


class OperationsPage(Page):
    """The newest operations."""

    path = "/operations"
    title = "Operations"
    template = "operations.html"
    methods = ("operation.list",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the operations that fit, newest first."""
        query = visit.request.query_params
        topic, state = query.get("topic", ""), query.get("state", "")
        arguments: dict[str, Any] = {"topic": topic, "limit": _LIMIT}
        if state in _STATES:
            arguments["states"] = [state]
        found = await visit.call("operation.list", arguments)
        return {"operations": list(reversed(found)), "topic": topic, "state": state, "states": _STATES, "limit": _LIMIT}


class OperationPage(Page):
    """One operation with its progress, arguments and result."""

    path = "/operations/{operation}"
    title = "Operation"
    template = "operation.html"
    methods = ("operation.show",)
    interval = 1.0
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the operation."""
        operation = await visit.call("operation.show", {"operation": visit.request.path_params["operation"]})
        back = visit.request.query_params.get("back", "")
        return {
            "operation": operation,
            "title": f"{operation['topic']}.{operation['method']}",
            "came_from": safe_target(visit.request, back) if back else "",
        }
