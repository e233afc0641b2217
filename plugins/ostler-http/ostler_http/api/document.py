"""`/openapi.json` and `/docs`: the description of the API, for programs and for people."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from ostler import OstlerError
from ostler_http.api.index import list_topics
from ostler_http.api.json_text import to_json
from ostler_http.api.responses import Response

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.interfaces import Interface
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Handler, Routes

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE_HEADERS = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
_PAGE_FILES = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


class DocumentHandlers:
    """Serves the OpenAPI document, and a page that shows it.

    The page has no facts and is for everybody who can connect; it reads the document with the token of who looks.

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._known: tuple[tuple[Interface, ...], str] = ((), "")
        self._document = b""

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", "/openapi.json", self.document)
        for path, (name, kind) in _PAGE_FILES.items():
            routes.add("GET", path, _serve_file(name, kind), is_public=True)

    async def document(self, request: Request) -> Response:
        """Serve the document; made again when an interface has changed."""
        request.query()
        interfaces = {}
        for each in await list_topics(self._context, request):
            try:
                interfaces[each["topic"]] = await self._context.interface(request, each["topic"])
            except OstlerError:  # it cannot be called either: it is stopped, or its host is away
                continue
        mount = request.scope.get("root_path", "") or "/"
        known = (tuple(interfaces.values()), mount)
        if known != self._known:
            # 10 ms: only for who asks for it.
            from ostler_http.api.openapi import make_document

            self._document = to_json(make_document(self._context.host, mount, interfaces))
            self._known = known
        return Response(self._document)


def _serve_file(name: str, kind: str) -> Handler:
    async def serve(request: Request) -> Response:
        request.query()
        body = files("ostler_http.api").joinpath("page", name).read_bytes()
        return Response(body, kind=kind, headers=_PAGE_HEADERS)

    return serve
