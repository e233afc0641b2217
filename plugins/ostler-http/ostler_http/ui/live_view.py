"""Pages that are kept up to date: the changed part of a page as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ostler import NotPermitted, OstlerError
from ostler_http.ui.filters import visible
from ostler_http.ui.responses import page_values
from ostler_http.ui.visit import Visit, Visits

if TYPE_CHECKING:
    from ostler_http.ui.pages import Page
    from ostler_http.ui.parts import Parts

SILENCE = 15.0
"""Seconds without a change after which a comment is sent, so that a lost connection is noticed on both sides."""
RETRY = 3000
"""Milliseconds after which a browser connects again."""
BUSY_RETRY = 30_000
"""The same while too many pages are open."""
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def live_response(parts: Parts, page: Page, visit: Visit) -> Response:
    """Return the stream that keeps a page up to date."""
    if page.interval is None:
        return JSONResponse({"title": "this page does not change", "status": 406}, status_code=406)
    return stream_response(parts, visit.caller.name, live_messages(parts, page, visit.request))


def ended_stream() -> Response:
    """Return the stream for a browser whose session has ended: its script then gets the page again, and so the login.

    An error would not tell the script from a connection that is lost.
    """
    return Response(message("end", {}), media_type="text/event-stream", headers=_HEADERS)


def stream_response(parts: Parts, caller: str, messages: AsyncIterator[str]) -> Response:
    """Return server-sent events; while too many pages are kept up to date, only that and when to try again."""
    if refusal := too_many(parts, caller):
        text = f"retry: {BUSY_RETRY}\n\n{message('problem', {'text': refusal})}"
        return Response(text, media_type="text/event-stream", headers=_HEADERS)
    return StreamingResponse(counted(parts, caller, _begun(messages)), media_type="text/event-stream", headers=_HEADERS)


def too_many(parts: Parts, caller: str) -> str:
    """Return why one more open page of a caller is not kept up to date; empty if it is."""
    limit, own = parts.options.max_live, parts.live[caller]
    if parts.live.total() >= limit:
        return f"{limit} pages are kept up to date already (`max_live`). Close some, or load this one again."
    if own >= max(1, limit // 2):
        return f"{own} pages of {caller} are kept up to date already. Close some, or load this one again."
    return ""


async def _begun(messages: AsyncIterator[str]) -> AsyncIterator[str]:
    yield f"retry: {RETRY}\n\n"
    async for each in messages:
        yield each


async def counted(parts: Parts, caller: str, messages: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield messages, and count this as an open page of a caller meanwhile."""
    parts.live[caller] += 1
    try:
        async for each in messages:
            yield each
    finally:
        parts.live[caller] -= 1
        if not parts.live[caller]:
            del parts.live[caller]


async def live_messages(parts: Parts, page: Page, request: Request) -> AsyncIterator[str]:
    """Yield the parts of a page whenever they have changed, until the session ends or the service stops."""
    visits, last, quiet = Visits(parts), "", 0.0
    interval = page.interval or SILENCE
    stopping = stopping_of(parts, request)
    while not stopping.is_set():
        try:
            visit = visits.of(request, is_use=False)
            if visit is None:
                yield message("end", {})
                return
            current = await _current(page, visit)
        except OstlerError as error:
            current = message("problem", {"text": visible(error.message)})
        if current != last:
            last, quiet = current, 0.0
            yield current
        elif quiet >= SILENCE:
            quiet = 0.0
            yield ": nothing has changed\n\n"
        await pause(stopping, interval)
        quiet += interval


async def _current(page: Page, visit: Visit) -> str:
    await visit.learn_methods("ostler")
    require_role(visit, page)
    values = await page_values(visit, page.title, page.path)
    values.update(await page.load(visit))
    templates = visit.parts.templates
    return message(
        "live",
        {
            "live": templates.part(page.template, "live", values),
            "health": templates.part("page.html", "health", values),
            "title": templates.part("page.html", "title", values).strip(),
        },
    )


def message(event: str, data: Any) -> str:
    """Return a server-sent event with JSON."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def stopping_of(parts: Parts, request: Request) -> asyncio.Event:
    """Return what is set when the service stops, or the mount ends: the server's, or else the application's own."""
    found: asyncio.Event = request.scope.get("ostler.stopping", parts.stopping)
    return found


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until the service stops."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        pass


def require_role(visit: Visit, page: Page) -> None:
    """Refuse a page whose methods the caller may not use, by what the daemon says of them.

    Raises:
        NotPermitted: The caller has not the role.
    """
    for method in page.methods:
        if not visit.may_call(method):
            needed = visit.method("ostler", method).get("role", "nobody")
            raise NotPermitted(
                f"{page.title} needs the role {needed}, {visit.caller.name} has {visit.role}",
                hint="log in with a token of that role",
            )
