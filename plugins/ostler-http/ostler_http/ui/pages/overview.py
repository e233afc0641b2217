"""The first page: what is not well, why, and what to do; then what is going on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler import OstlerError
from ostler_http.ui.filters import tone
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit, gathered

_MAX_EXPLAINED = 10
_MAX_RUNNING = 8


class OverviewPage(Page):
    """What an operator looks at first."""

    path = "/"
    title = "Overview"
    template = "overview.html"
    methods = ("status",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the problems, with what is known of each, and a summary of the rest."""
        status = await visit.status()
        found = await gathered(
            operations=visit.call("operation.list", {"states": ["queued", "running", "waiting"], "limit": 100}),
            periodic=visit.call("periodic_list"),
            traffic=visit.traffic(),
            explained=_explained(visit, status["services"]),
        )
        explained = [] if isinstance(found["explained"], OstlerError) else found["explained"]
        return {
            "explained": explained,
            "other_problems": other_problems(status["not_well"], explained),
            "operations": _newest(found["operations"]),
            "periodic": found["periodic"],
            "traffic": found["traffic"],
            "history": visit.parts.history.latest(8),
            "is_journaled": visit.parts.history.is_journaled,
        }


async def _explained(visit: Visit, services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the services that are not well, each with its causes."""
    unwell = sorted((service for service in services if not is_well(service)), key=_severity)[:_MAX_EXPLAINED]
    found = []
    for service in unwell:
        arguments = {"topic": service["topic"], "on_host": "" if service["here"] else service["host"]}
        try:
            found.append(await visit.call("service_show", arguments))
        except OstlerError as error:
            found.append({**service, "causes": [{"text": error.message, "remedy": error.hint}]})
    return found


def _severity(service: Mapping[str, Any]) -> tuple[int, bool, str]:
    """Return the place of a service among those with problems: what does not work comes before what is set aside."""
    tones = ("bad", "warn", "idle", "good")
    return tones.index(tone(service["state"])), not service["here"], service["topic"]


def is_well(service: Mapping[str, Any]) -> bool:
    """Return whether a service needs no attention; one that was removed with its host is reported by its host."""
    if service.get("forced_down") is not None:
        return False
    if service["link"] or service["state"] == "gone" or (not service["here"] and service["state"] == "stopped"):
        return True
    is_as_wanted = service["enabled"] and service["frozen"] is None
    return bool(service["state"] == "up" and service["up"] and is_as_wanted)


def other_problems(lines: list[str], explained: list[dict[str, Any]]) -> list[str]:
    """Return the problems that are not those of an explained service: of plugins, the log, hosts, reloads."""
    told = [beginning for service in explained if service.get("causes") for beginning in _beginnings(service)]
    return [line for line in lines if not line.startswith(tuple(told))]


def _beginnings(service: Mapping[str, Any]) -> list[str]:
    topic = service["topic"]
    name = f"service {topic}" if service["here"] else f"service {topic} on {service['host']}"
    drivers = [f"driver {driver['name']} of {topic} is" for driver in service.get("drivers", [])]
    return [f"{name}: ", f"{name} is ", f"service {topic} on {service['host']} was ", *drivers]


def _newest(operations: Any) -> Any:
    return operations if isinstance(operations, OstlerError) else list(reversed(operations))[:_MAX_RUNNING]
