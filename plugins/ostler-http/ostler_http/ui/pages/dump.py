"""What the daemon is doing right now, in all detail."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit


class DumpPage(Page):
    """The dump, a section for each part."""

    path = "/dump"
    title = "Dump"
    template = "dump.html"
    methods = ("dump",)
    interval = None

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the sections."""
        return {"dump": await visit.call("dump", timeout=30.0)}
