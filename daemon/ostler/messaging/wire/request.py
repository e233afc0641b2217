"""What a client asks for: one call, cast, fanout or stream, before it becomes bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ostler.messaging.wire.envelope import (
    CAST,
    FANOUT,
)
from ostler.messaging.wire.request_context import Progress


class CallRequest(NamedTuple):
    """What a caller wants: `result_type` is the type that the result is decoded to, None for plain values.

    `time_limit` is the seconds in which a submitted operation must end. `request_id` is the id of a request that may be
    sent again; empty to have the client choose one.
    """

    topic: str
    method: str
    arguments: Mapping[str, Any]
    host: str | None = None
    timeout: float | None = None
    result_type: Any = None
    on_progress: ProgressCallback | None = None
    flags: int = 0
    version: str = ""
    time_limit: float | None = None
    request_id: str = ""


CAST_FLAGS = CAST


FANOUT_FLAGS = CAST | FANOUT


ProgressCallback = Callable[[Progress], None]


ResultCallback = Callable[[Any, "Exception | None"], None]


class ClientTracer(Protocol):
    """Follows the requests of a client. On the thread that makes the request, and on that which hears of its end."""

    def begin(self, request: CallRequest, trace_now: str, on_result: ResultCallback) -> tuple[str, ResultCallback]:
        """Record a request; return the `traceparent` that it is to carry, and what is told of its end."""
        ...

    def end(self, on_result: ResultCallback, error: Exception) -> None:
        """Record a request that ends without an answer: it was cancelled, or could not be sent.

        Args:
            on_result: What `begin` returned.
            error: Why.
        """
        ...
