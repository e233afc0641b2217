"""Plugins."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit

_UNWELL = ("failed", "quarantined", "found", "blocked")


class PluginsPage(Page):
    """Every plugin that was found, those that are not well first."""

    path = "/plugins"
    title = "Plugins"
    template = "plugins.html"
    methods = ("plugin_list",)
    interval = 10.0

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the plugins."""
        plugins = await visit.call("plugin_list")
        plugins.sort(key=lambda plugin: (plugin["state"] not in _UNWELL, plugin["name"]))
        return {"plugins": plugins}
