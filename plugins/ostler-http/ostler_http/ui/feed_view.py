"""Lines that are added to a page as they happen: events and the log. For the script as rows, for others as text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from ostler import Event, Gap, OstlerError
from ostler_http.ui.filters import visible
from ostler_http.ui.live_view import SILENCE, counted, ended_stream, message, stopping_of, stream_response, too_many
from ostler_http.ui.pages.events import plain_event
from ostler_http.ui.pages.log import wanted_records
from ostler_http.ui.visit import Visit, Visits

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

_MOMENT = 0.1
"""Seconds for which events are collected."""
_BATCH = 200
"""The most of them that are sent at once."""

Rows = Callable[[Visit], AsyncGenerator[list[dict[str, Any]], None]]


def feed_endpoint(parts: Parts, rows: Rows, method: str, template: str) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers requests for a feed.

    Args:
        parts: What requests share.
        rows: Yields batches of rows for a visit.
        method: The method of the daemon whose role is needed.
        template: Its block `rows` shows a batch.
    """
    visits = Visits(parts)

    async def answer(request: Request) -> Response:
        visit = visits.of(request, is_use=False)
        if visit is None:
            return ended_stream()
        await visit.learn_methods("ostler")
        if not visit.may_call(method):
            return JSONResponse({"title": f"{method} needs another role than {visit.role}", "status": 403}, 403)
        if request.query_params.get("as") == "text":
            if refusal := too_many(parts, visit.caller.name):
                return PlainTextResponse(f"{refusal}\n", status_code=503, headers={"retry-after": "30"})
            lines = counted(parts, visit.caller.name, _text(parts, visits, rows, visit))
            return StreamingResponse(lines, media_type="text/plain; charset=utf-8")
        return stream_response(parts, visit.caller.name, _messages(parts, visits, rows, visit, template))

    return answer


async def _messages(parts: Parts, visits: Visits, rows: Rows, visit: Visit, template: str) -> AsyncIterator[str]:
    has_begun = False
    try:
        async with aclosing(_until_stop(parts, visits, rows, visit)) as batches:
            async for batch in batches:
                if not has_begun:
                    has_begun = True
                    yield message("begun", {})
                if batch:
                    html = parts.templates.part(template, "rows", {"rows": batch, "base": visit.base})
                    yield message("rows", {"rows": html})
                else:
                    yield ": nothing yet\n\n"
        if not stopping_of(parts, visit.request).is_set():
            yield message("end", {})
    except OstlerError as error:
        yield message("problem", {"text": visible(error.message)})


async def _text(parts: Parts, visits: Visits, rows: Rows, visit: Visit) -> AsyncIterator[str]:
    try:
        async with aclosing(_until_stop(parts, visits, rows, visit)) as batches:
            async for batch in batches:
                for row in batch:
                    yield f"{visible(json.dumps(row, ensure_ascii=False, default=str))}\n"
    except OstlerError as error:
        yield f"{visible(error.message)}\n"


async def _until_stop(
    parts: Parts, visits: Visits, rows: Rows, visit: Visit
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield batches until the session ends, has another role, or the service stops; an empty one after each silence."""
    stop = asyncio.ensure_future(stopping_of(parts, visit.request).wait())
    reading: asyncio.Future[list[dict[str, Any]]] | None = None
    try:
        async with aclosing(rows(visit)) as batches, _ended_before(lambda: reading):
            while (now := visits.of(visit.request, is_use=False)) is not None and now.role == visit.role:
                reading = reading or asyncio.ensure_future(anext(batches))
                waited: set[asyncio.Future[Any]] = {reading, stop}
                await asyncio.wait(waited, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    return
                if not reading.done():
                    yield []
                    continue
                done, reading = reading, None
                try:
                    yield done.result()
                except StopAsyncIteration:
                    return
    finally:
        stop.cancel()


@asynccontextmanager
async def _ended_before(current: Callable[[], asyncio.Future[Any] | None]) -> AsyncIterator[None]:
    """End the read in progress before the generator that it waits for is closed."""
    try:
        yield
    finally:
        if (reading := current()) is not None:
            reading.cancel()
            await asyncio.wait({reading})


async def log_rows(visit: Visit) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield what is logged."""
    async with aclosing(visit.client.stream("ostler", "log_follow", wanted_records(visit))) as batches:
        async for batch in batches:
            lost = [{"lost": batch["dropped"]}] if batch["dropped"] else []
            yield [*batch["records"], *lost]


async def event_rows(visit: Visit) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield what is published: what comes within a moment together, so that a browser has one change to show."""
    pattern = visit.request.query_params.get("pattern", "").strip()
    async with visit.client.subscribe(*([pattern] if pattern else [])) as events:
        yield []
        async for item in events:
            await asyncio.sleep(_MOMENT)
            others = [await anext(events) for _ in range(min(events.waiting_count, _BATCH))]
            yield [_event_row(each) for each in (item, *others)]


def _event_row(item: Event | Gap) -> dict[str, Any]:
    return {"gap": item._asdict()} if isinstance(item, Gap) else plain_event(item)
