"""The log of the daemon, live."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit

LEVELS = ("debug", "info", "warning", "error", "critical")
FILTERS = ("level", "logger", "service", "request")


def wanted_records(visit: Visit) -> dict[str, str]:
    """Return the filters of a request, as arguments of `log_follow`."""
    found = {name: visit.request.query_params.get(name, "").strip() for name in FILTERS}
    if found["level"] not in LEVELS:
        found["level"] = ""
    return found


class LogPage(Page):
    """What is logged from now on."""

    path = "/log"
    title = "Log"
    template = "log.html"
    methods = ("log_follow",)
    interval = None

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the filters; the lines come live."""
        status = await visit.status()
        return {"wanted": wanted_records(visit), "levels": LEVELS, "destination": status["log"]}
