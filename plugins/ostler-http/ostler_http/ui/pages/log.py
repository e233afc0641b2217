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
    """The last lines of the log, and what is logged from now on."""

    path = "/log"
    title = "Log"
    template = "log.html"
    methods = ("log_follow",)
    interval = None

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the filters, and the last lines that fit, newest first."""
        status, wanted = await visit.status(), wanted_records(visit)
        recent = visit.parts.recent_log.latest(lambda record: _fits(record, wanted))
        return {"wanted": wanted, "levels": LEVELS, "destination": status["log"], "recent": recent}


def _fits(record: dict[str, Any], wanted: dict[str, str]) -> bool:
    fields, logger = record["fields"], record["logger"]
    if wanted["level"] and record["level"] in LEVELS and LEVELS.index(record["level"]) < LEVELS.index(wanted["level"]):
        return False
    if wanted["logger"] and logger != wanted["logger"] and not logger.startswith(f"{wanted['logger']}."):
        return False
    if wanted["service"] and wanted["service"] not in (fields.get("service"), logger.rpartition(".service.")[2]):
        return False
    return not wanted["request"] or fields.get("request_id") == wanted["request"]
