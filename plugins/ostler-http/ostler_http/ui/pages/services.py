"""Services and their drivers."""

from __future__ import annotations

from typing import Any

from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit


class ServicesPage(Page):
    """All services, those of other hosts included."""

    path = "/services"
    title = "Services"
    template = "services.html"
    methods = ("service_list",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the services, those of this host first."""
        services = await visit.call("service_list")
        services.sort(key=lambda service: (not service["here"], service["host"], service["topic"]))
        return {"services": services, "hosts": {service["host"] for service in services}}


class ServicePage(Page):
    """One service: why it is as it is, its drivers, what has happened to it."""

    path = "/services/{topic}"
    title = "Service"
    template = "service.html"
    methods = ("service_show",)
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the service with the causes of its state, and its history."""
        topic, host = visit.request.path_params["topic"], visit.request.query_params.get("host", "")
        service = await visit.call("service_show", {"topic": topic, "on_host": host})
        periodic = await visit.call("periodic_list") if service["here"] else []
        return {
            "service": service,
            "title": f"{topic} on {service['host']}",
            "on_host": "" if service["here"] else service["host"],
            "tasks": [task for task in periodic if task["service"] == topic],
            "history": visit.parts.history.latest(30, topic=topic, host=service["host"]),
            "is_journaled": visit.parts.history.is_journaled,
        }
