"""Requests for pages: once as HTML, or kept up to date for the script of the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ostler import OstlerError
from ostler_http.ui.live_view import ended_stream, live_response, require_role
from ostler_http.ui.responses import error_page, page_values, redirect
from ostler_http.ui.visit import Visit, Visits, base_of, path_of, safe_target

if TYPE_CHECKING:
    from ostler_http.ui.pages import Page
    from ostler_http.ui.parts import Parts


def page_endpoint(parts: Parts, page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers requests for a page."""
    visits = Visits(parts)

    async def answer(request: Request) -> Response:
        is_live = "text/event-stream" in request.headers.get("accept", "")
        visit = visits.of(request, is_use=not is_live)
        if visit is None:
            return ended_stream() if is_live else to_login(parts, request)
        if is_live:
            return live_response(parts, page, visit)
        return await _answer_page(parts, page, visit)

    return answer


async def _answer_page(parts: Parts, page: Page, visit: Visit) -> Response:
    try:
        await visit.learn_methods("ostler")
        require_role(visit, page)
        values = await page_values(visit, page.title, page.path)
        values.update(await page.load(visit))
    except OstlerError as error:
        return await error_page(visit, error)
    values.update(notice=parts.notices.take(visit.csrf), live=page.interval is not None)
    return HTMLResponse(parts.templates.page(page.template, values))


def to_login(parts: Parts, request: Request) -> Response:
    """Have somebody without a role log in, and come back.

    Browsers keep the cookie of a session from a request that a link on another site leads to: `SameSite=Strict`. So
    whoever follows a link of an alert would have to log in again. They get a page that asks for the same one at once,
    which then comes from ours. Only what a person has followed is answered so, and the second request is not: browsers
    say which it is.
    """
    headers = request.headers
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-user") == "?1":
        target = safe_target(request, path_of(request))
        return HTMLResponse(parts.templates.page("again.html", {"base": base_of(request), "target": target}))
    return redirect(f"{base_of(request)}/login?next={quote(path_of(request), safe='/')}")
