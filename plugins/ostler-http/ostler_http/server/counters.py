"""Counts what a server has done and refused."""

from __future__ import annotations

from collections import Counter

REFUSALS = {
    "malformed": "not a valid HTTP request",
    "header_size": "above `max_header_size` or `max_headers`",
    "header_timeout": "headers not complete within `header_timeout`",
    "body_timeout": "body slower than `body_timeout` and `min_body_rate` allow",
    "body_size": "above `max_body_size`",
    "chunks": "a chunked body with more around its chunks than in them",
    "send_timeout": "a client that took nothing of its response within `send_timeout`",
    "response_timeout": "an application that did not respond within `response_timeout`",
    "response_failed": "an application that raised",
    "connections": "above `max_connections` or `max_connections_per_client`",
    "evicted": "an idle connection that gave its place to another",
    "tls_handshake": "a TLS handshake that failed",
    "path": "a path with dot segments, control characters or invalid UTF-8",
    "not_found": "no application is mounted there",
    "encoding": "a request with a content encoding",
    "pipeline": "too many requests in advance",
    "wsgi_queue": "above `wsgi_queue`",
    "stopping": "in progress when the time of a mount that ends was up",
    "failed_logins": "above `failed_logins`",
}
"""What the server refuses, by the name that it is counted under. Filters add theirs."""


class Counters:
    """Counts of one server. Any thread may read; the loop of the service counts."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.responses: Counter[int] = Counter()
        """Responses by the first digit of their status."""
        self.refused: Counter[str] = Counter()

    def refuse(self, why: str) -> None:
        """Count a refusal."""
        self.refused[why] += 1
