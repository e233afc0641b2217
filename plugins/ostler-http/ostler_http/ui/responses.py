"""Responses that are pages, and what an error of the daemon looks like on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ostler import OstlerError
from ostler_http.api.problems import status_of
from ostler_http.ui.visit import Visit, base_of

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

_TITLES = {400: "Not valid", 403: "Not permitted", 404: "Not found", 409: "Not possible now", 422: "Not valid"}


async def page_values(visit: Visit, title: str, path: str) -> dict[str, Any]:
    """Return what every page has: its title, the menu, and how the daemon is."""
    try:
        status = await visit.status()
    except OstlerError as error:
        status = {"host": visit.parts.environment.host, "not_well": [error.message]}
    plugin_menu = await visit.parts.plugin_pages.menu(visit)
    return {
        "visit": visit,
        "base": visit.base,
        "title": title,
        "path": path,
        "host": status["host"],
        "status": status,
        "problems": len(status["not_well"]),
        "menu": [page for page in visit.parts.pages if page.in_menu],
        "plugin_menu": plugin_menu,
        "now": visit.parts.environment.clock.wall(),
    }


async def error_page(visit: Visit, error: OstlerError, *, is_action: bool = False) -> Response:
    """Return the page that says what an error of the daemon says.

    Args:
        visit: The request.
        error: The error.
        is_action: Whether something was to be done, and not only shown.
    """
    status = status_of(error)
    title = "Not done" if is_action else _TITLES.get(status, "Not available")
    values = await page_values(visit, title, "")
    html = visit.parts.templates.page("error.html", {**values, "error": error, "status_code": status})
    return HTMLResponse(html, status_code=status)


def message_page(parts: Parts, request: Request, status: int, title: str, text: str) -> Response:
    """Return a page for somebody who has not logged in, or whose request cannot be a visit."""
    values = {"base": base_of(request), "title": title, "text": text, "host": parts.environment.host}
    return HTMLResponse(parts.templates.page("message.html", values), status_code=status)


def redirect(url: str) -> Response:
    """Have the browser get another page."""
    return RedirectResponse(url, status_code=303)
