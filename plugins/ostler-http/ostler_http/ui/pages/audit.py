"""The audit log: who did what."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit

_LIMIT = 200


class AuditPage(Page):
    """The newest entries that fit."""

    path = "/audit"
    title = "Audit"
    template = "audit.html"
    methods = ("audit",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the entries, newest first."""
        query = visit.request.query_params
        who, method, failed = query.get("who", ""), query.get("method", ""), query.get("failed") == "yes"
        entries = await visit.call("audit", {"who": who, "method": method, "failed": failed, "limit": _LIMIT})
        return {"entries": list(reversed(entries)), "who": who, "method": method, "failed": failed, "limit": _LIMIT}
