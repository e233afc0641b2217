"""Operations: `/operations…`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ostler import InvalidInput
from ostler_http.api.frames import ended, format_of
from ostler_http.api.idempotency import idempotency_id
from ostler_http.api.paging import newest_page
from ostler_http.api.preferences import read_preferences
from ostler_http.api.problems import HttpError
from ostler_http.api.request import EVENT_STREAM, JSON_TYPE
from ostler_http.api.responses import Response, json_response

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Routes

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class OperationHandlers:
    """Lists, shows, watches, cancels and retries operations, of this host or of another one (`host`).

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", "/operations", self.list)
        routes.add("GET", "/operations/{id}", self.show)
        routes.add("GET", "/operations/{id}/watch", self.watch)
        routes.add("POST", "/operations/{id}/cancel", self.cancel)
        routes.add("POST", "/operations/{id}/retry", self.retry)

    async def list(self, request: Request) -> Response:
        """Serve the list, the newest first."""
        query = request.query("topic", "state", "mine", "host", "limit", "cursor")
        arguments: dict[str, Any] = {"topic": query.get("topic", ""), "mine": _truth(query, "mine")}
        if "state" in query:
            arguments["states"] = query["state"].split(",")

        async def fetch(count: int) -> list[Any]:
            wanted = {**arguments, "limit": count}
            return await self._context.rows(request, "operation.list", wanted, host=query.get("host", ""))

        page = await newest_page(request, query, fetch, lambda row: row["id"])
        shown = await self._context.shown(request, "operation.list", page.rows)
        return json_response(shown, headers=page.headers)

    async def show(self, request: Request) -> Response | None:
        """Serve one; with `Accept: text/event-stream` or NDJSON its changes, with `Prefer: wait` when it has ended."""
        if format_of(request, over=JSON_TYPE):
            await self.watch(request)
            return None
        preferences = read_preferences(request)
        if not preferences.wait:
            return await self._one(request, "operation.show")
        host = request.query("host").get("host", "")
        found, _ = await wait_for_end(self._context, request, request.parameters["id"], host, preferences.wait)
        return json_response(found, headers=preferences._replace(respond_async=False).applied())

    async def watch(self, request: Request) -> None:
        """Serve one, and each change of it, until it has ended."""
        host = request.query("host").get("host", "")
        kind = format_of(request, EVENT_STREAM)
        await self._context.streams.send(
            request, kind, ended(_statuses(self._context, request, request.parameters["id"], host), "status")
        )

    async def cancel(self, request: Request) -> Response:
        """Serve the request to cancel one."""
        await request.arguments()
        return await self._one(request, "operation.cancel")

    async def retry(self, request: Request) -> Response:
        """Serve the request to queue one again that has failed or was cancelled."""
        await request.arguments()
        return await self._one(request, "operation.retry")

    async def _one(self, request: Request, method: str) -> Response:
        host = request.query("host").get("host", "")
        arguments = {"operation": request.parameters["id"]}
        key = idempotency_id(request) if request.method == "POST" else ""
        found = await self._context.control(request, method, arguments, host=host, key=key)
        return json_response(await self._context.shown(request, method, found))


async def wait_for_end(
    context: ApiContext, request: Request, operation: str, host: str, seconds: float
) -> tuple[Any, bool]:
    """Return an operation when it has ended, or as it is when time is up, and whether it has ended.

    Args:
        context: What the handlers share.
        request: The request; its deadline is a limit, too.
        operation: The id of the operation.
        host: Its host; empty for this one.
        seconds: For how long to wait.

    Raises:
        OstlerError: It is not there, or cannot be watched.
        ClientGone: The client has left.
    """
    left = request.timeout(context.timeout)
    found: Any = None

    async def follow() -> None:
        nonlocal found
        async with (
            asyncio.timeout(min(seconds, left or seconds)),
            aclosing(_statuses(context, request, operation, host)) as statuses,
        ):
            async for status in statuses:
                found = status

    try:
        await request.until_gone(follow())
    except TimeoutError:
        if found is None:  # this host is busy, or the other one
            status = await context.control(request, "operation.show", {"operation": operation}, host=host)
            found = await context.shown(request, "operation.show", status)
        return found, False
    return found, True


async def _statuses(context: ApiContext, request: Request, operation: str, host: str) -> AsyncGenerator[Any, None]:
    stream = context.client(request).stream(
        "ostler", "operation.watch", {"operation": operation}, host=host or None,
        timeout=request.timeout(None), request_id=request.request_id, trace=request.trace,
    )  # fmt: skip
    async with aclosing(stream) as statuses:
        async for status in statuses:
            yield await context.shown(request, "operation.watch", status)


def _truth(query: dict[str, str], name: str) -> bool:
    value = _TRUTH.get(query.get(name, "false").lower())
    if value is None:
        raise HttpError(400, InvalidInput(f"`{name}` must be true or false", hint="leave it out for false"))
    return value
