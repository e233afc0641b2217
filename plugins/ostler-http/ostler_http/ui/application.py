"""`UiApplication`: the routes and the life of the web page."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ostler import NotFound, OstlerError, Peer
from ostler_http.api.problems import status_of
from ostler_http.application import AppEnvironment, Application
from ostler_http.asgi import ASGIApp
from ostler_http.ui.action_view import ActionView
from ostler_http.ui.dump_view import DumpView
from ostler_http.ui.feed_view import event_rows, feed_endpoint, log_rows
from ostler_http.ui.login_views import LoginViews
from ostler_http.ui.options import UiOptions
from ostler_http.ui.page_view import page_endpoint
from ostler_http.ui.pages import all_pages
from ostler_http.ui.parts import Parts
from ostler_http.ui.plugin_pages import PluginPage, PluginPages
from ostler_http.ui.responses import error_page, message_page, redirect
from ostler_http.ui.security import SecurityHeaders
from ostler_http.ui.static_files import static_file
from ostler_http.ui.visit import Visits, base_of


class UiApplication(Application):
    """The web page. Whoever has no role is asked for a token."""

    Options = UiOptions
    needs_role = False

    def __init__(self, environment: AppEnvironment, options: UiOptions) -> None:
        super().__init__(environment, options)
        self.parts = Parts(environment, options, all_pages(), PluginPages(environment.pages, environment.log))
        self._following: list[asyncio.Task[None]] = []

    def build(self) -> ASGIApp:
        """Return the application; see `Application.build`."""
        parts, login, actions = self.parts, LoginViews(self.parts), ActionView(self.parts)
        pages = [*parts.pages, PluginPage()]
        routes = [
            Route("/login", login.show, methods=["GET"]),
            Route("/login", login.log_in, methods=["POST"]),
            Route("/logout", login.log_out, methods=["POST"]),
            Route("/ask", actions.ask, methods=["GET"]),
            Route("/do", actions.do, methods=["POST"]),
            Route("/dump.json", DumpView(parts).download, methods=["GET"]),
            Route("/static/{name}", static_file, methods=["GET"]),
            Route("/log/feed", feed_endpoint(parts, log_rows, "log_follow", "log.html"), methods=["GET"]),
            Route("/events/feed", feed_endpoint(parts, event_rows, "event_topics", "events.html"), methods=["GET"]),
            *(Route(page.path, page_endpoint(parts, page), methods=["GET"]) for page in pages),
        ]
        handlers: dict[Any, Any] = {
            404: self._not_found,
            405: self._not_found,
            OstlerError: self._refused,
            500: self._failed,
        }
        site = Starlette(routes=routes, exception_handlers=handlers)
        site.router.redirect_slashes = False  # it would name the host and scheme that a proxy has told us
        return SecurityHeaders(site)

    async def start(self) -> None:
        """Begin to keep what happens to services; see `Application.start`."""
        # As the daemon itself: only what happens to its own parts is read, which every caller with a role may see.
        gateway = self.environment.gateway
        client = gateway.client(gateway.caller_of_user(os.getuid(), os.getgid(), os.getpid()))
        self._following = [
            asyncio.create_task(self.parts.history.follow(client), name="history of the web page"),
            asyncio.create_task(self.parts.recent_log.follow(client), name="recent log of the web page"),
        ]
        for task in self._following:
            task.add_done_callback(self._on_end)

    async def stop(self, timeout: float) -> None:
        """End open pages; see `Application.stop`."""
        self.parts.stopping.set()
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following, timeout=timeout)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.environment.log.error("%s has ended", task.get_name(), exc_info=error)

    def login_link(self, peer: Peer) -> str:
        """Return a path, relative to the mount, that lets whoever opens it in once, as a local user.

        On the loop of the service. The code is in the fragment, which browsers do not send: it gets into no log.

        Args:
            peer: The local user.
        """
        return f"/login#once={self.parts.codes.issue(peer)}"

    async def _not_found(self, request: Request, error: Exception) -> Response:
        if request.scope["path"] in ("", request.scope["root_path"]):
            return redirect(f"{base_of(request)}/")
        status = getattr(error, "status_code", 404)
        if status == 404 and (visit := Visits(self.parts).of(request)) is not None:
            await visit.learn_methods("ostler")
            return await error_page(
                visit, NotFound("There is no such page.", hint="The menu has those that there are.")
            )
        return message_page(self.parts, request, status, "Not found", "There is no such page.")

    async def _failed(self, request: Request, error: Exception) -> Response:
        text = f"The page has failed: {type(error).__name__}. The log of the daemon says more."
        return message_page(self.parts, request, 500, "Not done", text)

    async def _refused(self, request: Request, error: Exception) -> Response:
        text = error.message if isinstance(error, OstlerError) else "The request was refused."
        status = status_of(error) if isinstance(error, OstlerError) else 400
        return message_page(self.parts, request, status, "Not done", text)
