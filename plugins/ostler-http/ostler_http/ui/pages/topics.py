"""Topics: how much is asked of them, how fast they answer, what goes wrong."""

from __future__ import annotations

from typing import Any

from ostler import NotFound
from ostler_http.ui.pages import Page
from ostler_http.ui.visit import Visit


class TopicsPage(Page):
    """All topics of this host."""

    path = "/topics"
    title = "Topics"
    template = "topics.html"
    methods = ("traffic",)

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the traffic of all topics."""
        return {"traffic": await visit.traffic()}


class TopicPage(Page):
    """One topic with all its methods, those without calls included."""

    path = "/topics/{topic}"
    title = "Topic"
    template = "topic.html"
    methods = ("traffic", "describe")
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the traffic and the description of a topic."""
        topic = visit.request.path_params["topic"]
        traffic = await visit.traffic()
        described = await visit.call("describe", {"topic": topic})
        found = next((one for one in traffic.topics if one["topic"] == topic), None)
        if found is None and not described:
            raise NotFound(f"topic {topic} was not found", hint="the page Topics lists those of this host")
        figures = {method["method"]: method for method in (found or {}).get("methods", [])}
        return {
            "traffic": traffic,
            "topic": found or {"topic": topic},
            "title": f"Topic {topic}",
            "described": [(method, figures.get(method["method"], {})) for method in described],
        }
