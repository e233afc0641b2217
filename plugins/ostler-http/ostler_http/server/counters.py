"""Counts what a server has done and refused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostler import Metrics

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
    "cross_site": "a page of another site that would use the certificate of a browser",
}
"""What the server refuses, by the name that it is counted under. Filters add theirs."""


BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MAX_SERIES = 1000
_NOBODY = "none"
"""The code of a request whose client left before its response."""


class Counters:
    """Counts of one server, which are metrics of its service as well. Any thread may read; the loop counts.

    Args:
        metrics: The metrics of the service.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.connections = 0
        self.requests = 0
        self.responses: Counter[int] = Counter()
        """Responses by the first digit of their status."""
        self.refused: Counter[str] = Counter()
        self._open = metrics.gauge("http_connections", "Connections of HTTP clients")
        self._accepted = metrics.counter("http_connections_accepted_total", "Connections of HTTP clients so far")
        self._refused = metrics.counter(
            "http_refused_total", "Requests and connections that were refused or cut off", labels=["reason"]
        )
        self._requests = metrics.counter(
            "http_requests_total", "HTTP requests by mount and status of the response", labels=["mount", "code"],
            max_series=_MAX_SERIES,
        )  # fmt: skip
        self._durations = metrics.histogram(
            "http_response_start_seconds", "Time from the headers of a request to the beginning of its response",
            labels=["mount"], buckets=BUCKETS,
        )  # fmt: skip
        self._kept: dict[tuple[str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def refuse(self, why: str) -> None:
        """Count a refusal."""
        self.refused[why] += 1
        self._refused.labels(reason=why).inc()

    def open(self) -> None:
        """Count a connection that was accepted."""
        self._open.inc()

    def accept(self) -> None:
        """Count a connection, before it is known whether there is room for it."""
        self.connections += 1
        self._accepted.inc()

    def close(self) -> None:
        """Count the end of a connection."""
        self._open.dec()

    def respond(self, mount: str, status: int, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            mount: The path of its mount; empty for none.
            status: The status of the response; 0 when there was none.
            seconds: The time until the response began.
        """
        self.responses[status // 100] += 1
        kept = self._kept.get((mount, status))
        if kept is None:
            series = self._requests.labels(mount=mount, code=str(status) if status else _NOBODY)
            kept = series.inc, self._durations.labels(mount=mount).observe
            if len(self._kept) < _MAX_SERIES:
                self._kept[mount, status] = kept
        count, observe = kept
        count()
        observe(seconds)
