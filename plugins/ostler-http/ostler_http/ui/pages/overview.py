"""The first page: what is not well, why, and what to do; then what is going on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ostler import OstlerError
from ostler_http.ui.filters import tone
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit, gathered

_MAX_EXPLAINED = 10
_MAX_LINES = 40
_MAX_RUNNING = 8
_PART_TIMEOUT = 3.0
"""Seconds for what explains or stands beside the problems: these are to be seen at once, also while something hangs."""
_PAGES = {"plugin": ("/plugins", "Plugins"), "host": ("/hosts", "Hosts"), "service": ("/services", "Services")}
"""Where more is said of a problem, by the first word of its line."""
_IN_PROGRESS = {"states": ["queued", "running", "waiting"], "limit": 100}


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
            operations=visit.call("operation.list", _IN_PROGRESS, timeout=_PART_TIMEOUT),
            periodic=visit.call("periodic_list", timeout=_PART_TIMEOUT),
            traffic=visit.traffic(),
            explained=explained(visit, status["services"], status["not_well"]),
        )
        causes = [] if isinstance(found["explained"], OstlerError) else found["explained"]
        hosts = {service["host"] for service in status["services"] if not service["here"]}
        others = other_problems(status["not_well"], causes)
        return {
            "explained": causes,
            "other_problems": [_linked(line, hosts) for line in others[:_MAX_LINES]],
            "more_problems": max(0, len(others) - _MAX_LINES),
            "operations": _newest(found["operations"]),
            "periodic": found["periodic"],
            "traffic": found["traffic"],
            "history": visit.parts.history.latest(8),
            "is_journaled": visit.parts.history.is_journaled,
        }


async def explained(visit: Visit, services: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """Return the services that are not well, the worst first, each with its causes; ten at most.

    Args:
        visit: Who asks.
        services: All services.
        lines: The problems as the status has them: what is said of a service whose causes cannot be read.
    """
    unwell = sorted((service for service in services if not is_well(service)), key=_severity)[:_MAX_EXPLAINED]
    return await asyncio.gather(*(_explain(visit, service, lines) for service in unwell))


async def _explain(visit: Visit, service: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    arguments = {"topic": service["topic"], "on_host": "" if service["here"] else service["host"]}
    try:
        found: dict[str, Any] = await visit.call("service_show", arguments, timeout=_PART_TIMEOUT)
    except OstlerError as error:
        known = [{"text": line} for line in lines if line.startswith(tuple(_beginnings(service)))]
        return {**service, "causes": known or [{"text": service.get("why", "")}], "unknown": error}
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


def _linked(line: str, hosts: set[str]) -> dict[str, str]:
    first = line.partition(" ")[0]
    path, title = _PAGES["host"] if first in hosts else _PAGES.get(first, ("", ""))
    return {"text": line, "path": path, "title": title}


def _beginnings(service: Mapping[str, Any]) -> list[str]:
    topic = service["topic"]
    name = f"service {topic}" if service["here"] else f"service {topic} on {service['host']}"
    drivers = [f"driver {driver['name']} of {topic} is" for driver in service.get("drivers", [])]
    return [f"{name}: ", f"{name} is ", f"service {topic} on {service['host']} was ", *drivers]


def _newest(operations: Any) -> Any:
    return operations if isinstance(operations, OstlerError) else list(reversed(operations))[:_MAX_RUNNING]
