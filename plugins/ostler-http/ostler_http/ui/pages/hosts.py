"""Hosts: this one, and those that it knows by their services."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit, gathered


class HostsPage(Page):
    """All hosts, and the versions of topics that hosts share."""

    path = "/hosts"
    title = "Hosts"
    template = "hosts.html"
    methods = ("service_list", "service_versions")
    interval = 5.0

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the hosts with their services, this one first, and how far upgrades are."""
        status = await visit.status()
        found = await gathered(services=visit.call("service_list"), versions=visit.call("service_versions"))
        if isinstance(found["services"], Exception):
            raise found["services"]
        hosts: dict[str, dict[str, Any]] = {status["host"]: {"services": [], "link": "", "here": True}}
        for service in found["services"]:
            known = hosts.setdefault(service["host"], {"services": [], "link": "", "here": service["here"]})
            known["services"].append(service)
            known["link"] = known["link"] or service["link"]
        return {"hosts": hosts, "versions": found["versions"]}
