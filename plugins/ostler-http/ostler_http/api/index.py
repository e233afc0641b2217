"""The index of the API, and the topics with their methods: `/` and `/topics…`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostler_http.api.interfaces import CONTROL_TOPIC
from ostler_http.api.responses import Response, json_response

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Routes

_PATHS = (
    "status", "services", "drivers", "periodic", "plugins", "configuration", "audit", "operations", "events", "topics",
    "reload", "whoami", "openapi.json", "docs",
)  # fmt: skip


class IndexHandlers:
    """Says what there is.

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", "/", self.index)
        routes.add("GET", "/topics", self.topics)
        routes.add("GET", "/topics/{topic}", self.topic)
        routes.add("GET", "/topics/{topic}/methods", self.topic)

    async def index(self, request: Request) -> Response:
        """Serve the index."""
        request.query()
        root = request.scope.get("root_path", "")
        return json_response({"host": self._context.host, "paths": {name: f"{root}/{name}" for name in _PATHS}})

    async def topics(self, request: Request) -> Response:
        """Serve the topics, and on which hosts they are."""
        request.query()
        return json_response(await list_topics(self._context, request))

    async def topic(self, request: Request) -> Response:
        """Serve the methods of a topic, as `ostler describe --json` shows them."""
        host = request.query("host").get("host", "")
        found = await self._context.interface(request, request.parameters["topic"], host)
        return json_response([method.description for method in found.methods.values()])


async def list_topics(context: ApiContext, request: Request) -> list[dict[str, Any]]:
    """Return the topics that can be called, with the hosts that have them.

    Args:
        context: What the handlers share.
        request: The request; asked in the name of its caller.
    """
    hosts: dict[str, list[str]] = {CONTROL_TOPIC: [context.host]}
    for service in await context.control(request, "service_list"):
        hosts.setdefault(service["topic"], []).append(service["host"])
    return [{"topic": topic, "hosts": sorted(hosts[topic])} for topic in sorted(hosts)]
