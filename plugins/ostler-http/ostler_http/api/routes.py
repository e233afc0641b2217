"""Which handler serves a path: a tree of dictionaries, one step for each part of the path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ostler import InvalidInput, NotFound, nearest
from ostler_http.api.problems import HttpError
from ostler_http.api.responses import Response

if TYPE_CHECKING:
    from ostler_http.api.request import Request

Handler: TypeAlias = Callable[["Request"], Awaitable[Response | None]]
"""Serves a request; returns the response, or None when it has sent one itself."""
_PARAMETER = "{}"


class Route(NamedTuple):
    """What serves a method of a path, and whether callers without a role may ask."""

    handler: Handler
    is_public: bool = False


class _Node:
    """One part of paths: what may follow, and what serves the path that ends here."""

    __slots__ = ("children", "names", "parameter", "routes")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, Route] = {}
        self.names: tuple[str, ...] = ()


class Routes:
    """The paths of an application. A text goes before a parameter in its place."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, method: str, path: str, handler: Handler, *, is_public: bool = False) -> None:
        """Serve a path.

        Args:
            method: `GET` (which serves `HEAD` as well) or another one.
            path: `/operations/{id}`; a part in braces is a parameter.
            handler: What serves it.
            is_public: Whether callers without a role may ask.
        """
        node, names = self._root, []
        for part in path.strip("/").split("/"):
            if part.startswith("{"):
                names.append(part.strip("{}"))
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.children.setdefault(part, _Node())
        node.names = tuple(names)
        node.routes[method] = Route(handler, is_public)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the method and the path of each route, parameters as `{}`."""
        waiting = [("", self._root)]
        while waiting:
            path, node = waiting.pop()
            yield from ((method, path or "/") for method in node.routes)
            waiting += [(f"{path}/{part}" if part else path, child) for part, child in node.children.items()]
            if node.parameter is not None:
                waiting.append((f"{path}/{_PARAMETER}", node.parameter))

    def find(self, method: str, parts: Sequence[str]) -> tuple[Route, dict[str, str]]:
        """Return what serves a request, and the parameters of its path.

        Args:
            method: The method of the request.
            parts: The parts of the path below the mount, without percent-encoding: one may have a slash.

        Raises:
            HttpError: There is no such path (404), or it does not have the method (405).
        """
        node, values = self._root, []
        path = f"/{'/'.join(parts)}"
        for part in parts:
            following = node.children.get(part)
            if following is None:
                following = node.parameter if part else None
                values.append(part)
            if following is None:
                raise _not_found(path, node, part)
            node = following
        route = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if route is None and method == "OPTIONS" and node.routes:
            route = Route(_say_methods(node), is_public=True)
        if route is None:
            raise _not_allowed(method, path, node)
        return route, dict(zip(node.names, values, strict=True)) if values else {}


def _methods_of(node: _Node) -> str:
    return ", ".join(sorted({*node.routes, "OPTIONS", *(["HEAD"] if "GET" in node.routes else [])}))


def _say_methods(node: _Node) -> Handler:
    async def serve(_request: Request) -> Response:
        return Response(status=204, headers={"allow": _methods_of(node)})

    return serve


def _not_found(path: str, node: _Node, part: str) -> HttpError:
    near = nearest(part, node.children)
    hint = f"did you mean {near}?" if near else "the index of the API lists its paths; see also docs"
    return HttpError(404, NotFound(f"there is no {path} here", hint=hint, reason="path"))


def _not_allowed(method: str, path: str, node: _Node) -> HttpError:
    if not node.routes:
        return HttpError(404, NotFound(f"there is no {path} here", hint="the path is not complete", reason="path"))
    allowed = _methods_of(node)
    error = InvalidInput(f"{path} does not have the method {method}", hint=f"use one of: {allowed}", reason="method")
    return HttpError(405, error, allow=allowed)
