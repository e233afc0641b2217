"""Short names for what everybody wants to know: status, services, drivers, periodic tasks, configuration, audit log.

Each is a method of the daemon itself, shown as the command shows it with `--json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler_http.api.idempotency import idempotency_id
from ostler_http.api.paging import Key, newest_page, sorted_page
from ostler_http.api.responses import Response, json_response

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Handler, Routes


class Single(NamedTuple):
    """A path that shows what one method of the daemon returns.

    Attributes:
        path: The path; its parameters are arguments.
        method: The method of the topic `ostler`.
        query: Query parameters that are arguments, read as texts.
        names: Query or path parameter to the name of the argument, where they differ.
        verb: `GET` or `POST`.
        summary: What it is.
    """

    path: str
    method: str
    query: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    verb: str = "GET"
    summary: str = ""


class Listing(NamedTuple):
    """A path that shows a list in pages.

    Attributes:
        path: The path.
        method: The method of the topic `ostler` that returns the rows.
        key: By what a row is known.
        filters: Query parameters that choose rows, by their field.
        rows: Makes the rows of what the method returned; itself by default.
        summary: What it is.
    """

    path: str
    method: str
    key: Key
    filters: tuple[str, ...] = ()
    rows: Callable[[Any], list[Any]] = list
    summary: str = ""


def _driver_rows(services: Iterable[dict[str, Any]]) -> list[Any]:
    return [
        {
            "subject": f"{service['topic']}/{driver['name']}", "service": service["topic"], "host": service["host"],
            **driver,
        }
        for service in services
        for driver in service["drivers"]
    ]  # fmt: skip


SINGLES = [
    Single("/status", "status", summary="The daemon: itself, services, drivers, plugins, and problems"),
    Single(
        "/services/{topic}",
        "service_show",
        ("host",),
        (("host", "on_host"),),
        summary="One service, with the causes for which it is not up and well",
    ),
    Single("/periodic/{service}/{task}", "periodic_show", summary="A periodic task with its last runs"),
    Single("/whoami", "whoami", summary="Who the caller is for the daemon, and its role"),
    Single("/reload", "reload_plan", summary="What a reload would do now; nothing is changed"),
    Single("/reload", "reload", ("keep_failed",), verb="POST", summary="Read, check and apply the configuration"),
]
LISTINGS = [
    Listing("/services", "service_list", lambda row: [row["topic"], row["host"]], ("topic", "state"),
            summary="Every service in the services table, those of other hosts included"),
    Listing("/drivers", "service_list", lambda row: [row["service"], row["host"], row["name"]], ("service", "state"),
            _driver_rows, summary="The drivers of all services"),
    Listing("/periodic", "periodic_list", lambda row: [row["service"], row["task"]], ("service",),
            summary="Every periodic task"),
    Listing("/plugins", "plugin_list", lambda row: [row["name"], row["distribution"]], ("state",),
            summary="Every plugin that was found, with its state and why"),
    Listing("/configuration", "config", lambda row: row["path"],
            summary="Every option with its value and where that comes from; secrets are masked"),
]  # fmt: skip
AUDIT_FILTERS = ("who", "method", "since", "failed")


class ResourceHandlers:
    """Serves the short names.

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        for single in SINGLES:
            routes.add(single.verb, single.path, self._single(single))
        for listing in LISTINGS:
            routes.add("GET", listing.path, self._listing(listing))
        routes.add("GET", "/audit", self.audit)

    def _single(self, each: Single) -> Handler:
        names = dict(each.names)
        asks_host = not names

        async def serve(request: Request) -> Response:
            query = request.query(*each.query, *(["host"] if asks_host else []))
            if each.verb == "POST":
                query = {**query, **await request.arguments()}
            host = query.pop("host", "") if asks_host else ""
            given = {**query, **request.parameters}
            arguments = {names.get(name, name): value for name, value in given.items()}
            key = idempotency_id(request) if each.verb == "POST" else ""
            found = await self._context.control(request, each.method, arguments, host=host, lenient=True, key=key)
            if each.verb == "POST":
                self._context.interfaces.forget()
            return json_response(await self._context.shown(request, each.method, found))

        return serve

    def _listing(self, each: Listing) -> Handler:
        async def serve(request: Request) -> Response:
            query = request.query(*each.filters, "host", "limit", "cursor")
            found = await self._context.control(request, each.method, host=query.get("host", ""))
            shown = each.rows(await self._context.shown(request, each.method, found))
            chosen = [row for row in shown if all(row[name] == query.get(name, row[name]) for name in each.filters)]
            page = sorted_page(request, query, chosen, each.key)
            return json_response(page.rows, headers=page.headers)

        return serve

    async def audit(self, request: Request) -> Response:
        """Serve the audit log, the newest entry first."""
        query = request.query(*AUDIT_FILTERS, "host", "limit", "cursor")
        filters = {name: query[name] for name in AUDIT_FILTERS if name in query}

        async def fetch(count: int) -> list[Any]:
            wanted = {**filters, "limit": count}
            return await self._context.rows(request, "audit", wanted, host=query.get("host", ""))

        page = await newest_page(request, query, fetch, lambda row: row["number"])
        shown = await self._context.shown(request, "audit", page.rows)
        return json_response(shown, headers=page.headers)
