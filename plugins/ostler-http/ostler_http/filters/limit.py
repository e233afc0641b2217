"""The filter `limit`: bounds how often, and how many at once, one caller may ask."""

from __future__ import annotations

import math
from collections import OrderedDict

from ostler import Field
from ostler_http.application import Filter, FilterOptions
from ostler_http.asgi import ASGIApp, Receive, Scope, Send
from ostler_http.problems import send_problem

_MAX_CALLERS = 10_000


class LimitOptions(FilterOptions):
    """The options of the filter `limit`."""

    rate: float = Field(50.0, gt=0, help="Requests per second of one caller, on average", unit="requests per second")
    burst: int = Field(100, ge=1, help="Requests that one caller may send at once before the rate counts")
    concurrency: int = Field(
        32, ge=1, help="Requests of one caller in progress, event streams and WebSockets among them"
    )


class Bucket:
    """What one caller has used."""

    __slots__ = ("at", "in_progress", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.in_progress = 0


class LimitFilter(Filter):
    """Refuses requests above the rate or the concurrency of their caller (429, with `Retry-After`).

    Callers without a name are told apart by their address.
    """

    Options = LimitOptions

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """See `Filter.wrap`."""
        options, clock = self.environment.options, self.environment.clock
        buckets: OrderedDict[str, Bucket] = OrderedDict()

        async def check(scope: Scope, receive: Receive, send: Send) -> None:
            bucket, now = _bucket_of(scope, buckets, options, clock.monotonic())
            bucket.tokens = min(options.burst, bucket.tokens + (now - bucket.at) * options.rate)
            bucket.at = now
            if bucket.in_progress >= options.concurrency:
                await self._refuse(scope, send, f"more than {options.concurrency} requests of one caller at once", 1)
            elif bucket.tokens < 1:
                wait = math.ceil((1 - bucket.tokens) / options.rate)
                await self._refuse(scope, send, f"more than {options.rate:g} requests per second of one caller", wait)
            else:
                bucket.tokens -= 1
                bucket.in_progress += 1
                try:
                    await app(scope, receive, send)
                finally:
                    bucket.in_progress -= 1

        return check

    async def _refuse(self, scope: Scope, send: Send, text: str, wait: int) -> None:
        self.environment.count("rate")
        await send_problem(scope, send, 429, text, [(b"retry-after", str(wait).encode())])


def _bucket_of(
    scope: Scope, buckets: OrderedDict[str, Bucket], options: LimitOptions, now: float
) -> tuple[Bucket, float]:
    caller, client = scope["ostler.caller"], scope.get("client")
    key = caller.name if caller.role is not None or not client else f"{caller.name} {client[0]}"
    found = buckets.get(key)
    if found is None:
        found = buckets[key] = Bucket(options.burst, now)
        while len(buckets) > _MAX_CALLERS:
            buckets.popitem(last=False)
    else:
        buckets.move_to_end(key)
    return found, now
