"""The application `metrics`: its options, and who gets what."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from ostler import (
    OPENMETRICS_TEXT,
    PROMETHEUS_TEXT,
    Busy,
    Caller,
    ConnectionLost,
    DeadlineExceeded,
    Field,
    MetricFamily,
    NotPermitted,
    OstlerError,
    Seconds,
    prometheus_text,
)
from ostler_http.application import AppEnvironment, Application, AppOptions
from ostler_http.problems import send_problem

if TYPE_CHECKING:
    from ostler_http.asgi import ASGIApp, Receive, Scope, Send

_MAX_SCRAPES = 4
"""Requests that are served at once; Prometheus sends one at a time."""
_RETRY_AFTER = 5
_SCRAPE_TIMEOUT = "x-prometheus-scrape-timeout-seconds"
_GZIP_SIZE = 8 * 1024
_REFUSED = {"q=0", "q=0.0", "q=0.00", "q=0.000"}


class MetricsOptions(AppOptions):
    """The options of a mount with `app = "metrics"`."""

    open: bool = Field(
        False, help="Whether everybody who can connect gets the metrics; else only callers with a role", reload="live"
    )
    timeout: Seconds = Field(10, gt=0, le=60, help="Time that the daemon has to return its metrics", reload="live")
    max_series: int = Field(
        50_000,
        ge=1000,
        help="The most series, a histogram's by its buckets; metrics beyond are left out, which is logged",
        reload="live",
    )


class MetricsApplication(Application):
    """Serves all metrics in the text format of Prometheus or as OpenMetrics, whichever the client accepts."""

    Options: ClassVar[type[AppOptions]] = MetricsOptions

    def __init__(self, environment: AppEnvironment, options: Any) -> None:
        super().__init__(environment, options)
        # An instance of a mount that is open needs less than the class.
        self.needs_role = not options.open  # type: ignore[misc]
        self._scrapes = 0
        self._left_out: list[str] = []

    def build(self) -> ASGIApp:
        """See `Application.build`."""
        return self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send_problem(scope, send, 404, "metrics are read with GET")
        elif scope["path"].removeprefix(scope.get("root_path", "")).strip("/"):
            await send_problem(scope, send, 404, f"the metrics are at {self.environment.mount}")
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(scope, send, 405, "metrics are read with GET", [(b"allow", b"GET, HEAD")])
        else:
            try:
                response = await self._scrape(scope)
            except OstlerError as error:
                await self._refuse(scope, send, error)
            else:
                # Not counted any more: a client that does not read takes no place from others.
                await response(scope, receive, send)

    async def _scrape(self, scope: Scope) -> Response:
        if self._scrapes >= _MAX_SCRAPES:
            raise Busy(f"{self._scrapes} other requests for the metrics are in progress")
        self._scrapes += 1
        try:
            families = await self._read(scope)
        finally:
            self._scrapes -= 1
        request = Request(scope)
        content_type = choose_format(request.headers.get("accept", ""))
        kept = self._bounded(families)
        body = prometheus_text(kept, openmetrics=content_type == OPENMETRICS_TEXT).encode()
        headers = {"content-type": content_type, "cache-control": "no-store", "vary": "accept, accept-encoding"}
        if len(body) > _GZIP_SIZE and "gzip" in request.headers.get("accept-encoding", "").lower():
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        return Response(body, headers=headers)

    async def _read(self, scope: Scope) -> list[MetricFamily]:
        gateway, caller = self.environment.gateway, scope["ostler.caller"]
        if self.options.open and caller.role is None:
            caller = daemon_caller(gateway)
        timeout = _timeout(self.options.timeout, Request(scope).headers.get(_SCRAPE_TIMEOUT, ""))
        found: list[MetricFamily] = await gateway.client(caller).call(
            "ostler", "metrics", timeout=timeout, result_type=list[MetricFamily],
            request_id=scope["ostler.request_id"], trace=scope["ostler.trace"],
        )  # fmt: skip
        return found

    def _bounded(self, families: list[MetricFamily]) -> list[MetricFamily]:
        """Return the metrics whose lines fit; one that does not is left out whole."""
        kept, left_out, room = [], [], self.options.max_series
        for family in families:
            lines = len(family.series) * (len(family.bounds) + 3 if family.kind == "histogram" else 1)
            if lines <= room:
                kept.append(family)
                room -= lines
            else:
                left_out.append(family.name)
        self._log_left_out(left_out)
        return kept

    async def _refuse(self, scope: Scope, send: Send, error: OstlerError) -> None:
        if isinstance(error, NotPermitted):
            await send_problem(scope, send, 403, error.message)
            return
        text = error.message
        if isinstance(error, DeadlineExceeded | ConnectionLost):  # the latter when it shows no sign of life
            text = "the daemon has not returned its metrics in time: its event loop may hang, see /livez"
        await send_problem(scope, send, 503, text, [(b"retry-after", str(_RETRY_AFTER).encode())])

    def _log_left_out(self, names: list[str]) -> None:
        if names != self._left_out and names:
            self.environment.log.warning(
                "%d metrics are left out, as there are more than %d series (`max_series`): %s",
                len(names), self.options.max_series, ", ".join(names[:10]),
            )  # fmt: skip
        self._left_out = names


def _timeout(limit: float, scrape_timeout: str) -> float:
    """Return the seconds for reading: less than the client waits, so that it is told why there is nothing."""
    try:
        seconds = 0.9 * float(scrape_timeout)
    except ValueError:
        return limit
    return min(limit, seconds) if seconds > 0 else limit


def choose_format(accept: str) -> str:
    """Return the content type for what a client accepts: OpenMetrics where it is named, else plain text."""
    ranges = ([word.strip().lower() for word in each.split(";")] for each in accept.split(","))
    is_named = any(words[0] == "application/openmetrics-text" and not _REFUSED & set(words) for words in ranges)
    return OPENMETRICS_TEXT if is_named else PROMETHEUS_TEXT


def daemon_caller(gateway: Any) -> Caller:
    """Return the user that the daemon runs as, for what everybody may know."""
    caller: Caller = gateway.caller_of_user(os.geteuid(), os.getegid(), os.getpid())
    return caller
