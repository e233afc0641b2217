"""The types of the API of an HTTP service."""

from __future__ import annotations

import msgspec


class HttpMount(msgspec.Struct, frozen=True):
    """A mount of an HTTP service.

    Attributes:
        path: Where it is mounted.
        app: The name of its application.
        filters: Its filters.
        in_flight: Its requests in progress.
    """

    path: str
    app: str
    filters: list[str] = []
    in_flight: int = 0


class HttpStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP service as an operator sees it; counts are since its start.

    Attributes:
        topic: The service.
        host: Its host.
        addresses: Where it listens, as clients write it.
        mounts: What is mounted.
        connections: Connections that are open.
        accepted: Connections that were accepted.
        requests: Requests, WebSockets among them.
        responses: Responses by the class of their status, `2xx`.
        refused: What the server and the filters have refused or cut, by its name.
        wsgi_threads: Threads for WSGI applications that were started.
        wsgi_overdue: Those of them that do what nobody waits for any more.
        wsgi_limit: How many there may be.
    """

    topic: str
    host: str
    addresses: list[str] = []
    mounts: list[HttpMount] = []
    connections: int = 0
    accepted: int = 0
    requests: int = 0
    responses: dict[str, int] = {}
    refused: dict[str, int] = {}
    wsgi_threads: int = 0
    wsgi_overdue: int = 0
    wsgi_limit: int = 0
