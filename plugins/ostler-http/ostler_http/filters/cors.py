"""The filter `cors`: lets pages of other origins use an application, as far as their users hold tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from ostler import Field, Seconds
from ostler_http.application import Filter, FilterOptions
from ostler_http.asgi import ASGIApp

EXPOSED_HEADERS = ("ETag", "Link", "Location", "Preference-Applied", "Retry-After", "WWW-Authenticate", "X-Request-Id")
"""Headers of responses that pages may read."""


class CorsOptions(FilterOptions):
    """The options of the filter `cors`."""

    origins: list[str] = Field([], help='Origins that may ask: `"https://console.example.org"`; none by default')
    methods: list[str] = Field(["GET", "HEAD", "POST"], help="Methods that they may use")
    headers: list[str] = Field(
        [
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-None-Match",
            "Last-Event-ID",
            "Prefer",
            "Request-Timeout",
            "X-Request-Id",
            "traceparent",
        ],
        help="Headers that they may send",
    )
    max_age: Seconds = Field(600, ge=0, help="How long a browser may remember the answer")

    def validate_options(self) -> Iterator[tuple[str, str]]:
        """See `OptionsModel.validate_options`."""
        if any("*" in origin or "://" not in origin or origin.endswith("/") for origin in self.origins):
            yield "origins", 'must name whole origins, such as "https://console.example.org", without `*`'


class CorsFilter(Filter):
    """Answers preflight requests, and adds the headers of CORS. It stands before `auth`: preflights have no token.

    Cookies are never allowed.
    """

    Options = CorsOptions

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """See `Filter.wrap`."""
        from starlette.middleware.cors import CORSMiddleware  # only for a service that has this filter

        options: CorsOptions = self.environment.options
        wrapped = CORSMiddleware(
            app, allow_origins=options.origins, allow_methods=options.methods, allow_headers=options.headers,
            expose_headers=EXPOSED_HEADERS, max_age=int(options.max_age),
        )  # fmt: skip
        return cast(ASGIApp, wrapped)
