"""The configuration in effect, and what a reload would do."""

from __future__ import annotations

from typing import Any

from ostler import OstlerError
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit


class ConfigurationPage(Page):
    """Every option with its value and where it comes from."""

    path = "/configuration"
    title = "Configuration"
    template = "configuration.html"
    methods = ("config",)
    interval = None

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the options that fit, by table."""
        wanted = visit.request.query_params.get("q", "").strip()
        is_full = visit.request.query_params.get("all") == "yes"
        tables: dict[str, list[dict[str, Any]]] = {}
        for option in await visit.call("config"):
            if wanted.lower() in option["path"].lower() and (is_full or wanted or option["origin"] != "default"):
                table, _, name = option["path"].rpartition(".")
                tables.setdefault(table, []).append({**option, "name": name})
        status = await visit.status()
        return {
            "tables": tables, "q": wanted, "all": is_full,
            "last_reload": status["last_reload"], "needs_restart": status["needs_restart"],
        }  # fmt: skip


class ReloadPlanPage(Page):
    """What a reload would do now."""

    path = "/configuration/plan"
    title = "Plan of a reload"
    template = "plan.html"
    methods = ("reload_plan",)
    interval = None
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the plan, or why there is none: the files have mistakes."""
        try:
            return {"plan": await visit.call("reload_plan", timeout=60.0), "error": None}
        except OstlerError as error:
            return {"plan": None, "error": error}
