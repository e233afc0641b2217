"""The W3C trace context: what follows one piece of work through calls, threads, events and hosts."""

from __future__ import annotations

import contextvars
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ostler.errors import InvalidInput
from ostler.messaging.wire.request_context import Context, current_context

if TYPE_CHECKING:
    pass

# Version ff is forbidden; a version above 00 may have more fields behind, of which nothing is known here.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
# What was chosen, and inside of which request: one that is served further down, in a copy of these context variables,
# has its own.
_trace_override: contextvars.ContextVar[tuple[str | None, Context | None]] = contextvars.ContextVar(
    "ostler_trace", default=(None, None)
)


def is_valid_traceparent(traceparent: str) -> bool:
    """Return whether a text is a W3C `traceparent`."""
    if len(traceparent) != 55 and not (len(traceparent) > 55 and traceparent[:2] > "00"):
        return False
    return _TRACEPARENT.fullmatch(traceparent) is not None


def current_trace() -> str:
    """Return the `traceparent` that work begun here belongs to, empty when nobody traces. Any thread.

    It is that of the block of `trace_context` here, else that of a span of OpenTelemetry that is current here, else
    that of the request that is served.
    """
    return outgoing_trace(current_context())


def outgoing_trace(context: Context | None) -> str:
    """Do what `current_trace` does, for who knows the request that is served. Any thread."""
    chosen, inside = _trace_override.get()
    if chosen is not None and inside is context:
        return chosen
    # Whoever has a span has imported this; a program that does not trace pays for one look into a dictionary.
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is not None and (found := _traceparent_of_span(opentelemetry)):
        return found
    return context.trace if context is not None else ""


@contextmanager
def trace_context(traceparent: str) -> Iterator[None]:
    """Have everything that is called, cast or published inside the block belong to a trace.

    Args:
        traceparent: As W3C writes it: `00-TRACE_ID-SPAN_ID-FLAGS`; empty to leave every trace.

    Raises:
        InvalidInput: It is not valid.
    """
    if traceparent and not is_valid_traceparent(traceparent):
        raise InvalidInput(
            f"{traceparent[:80]!r} is not a valid W3C traceparent",
            hint="it looks like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
    token = _trace_override.set((traceparent, current_context()))
    try:
        yield
    finally:
        _trace_override.reset(token)


def format_traceparent(trace_id: int, span_id: int, flags: int) -> str:
    """Return the text for these numbers."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def _traceparent_of_span(opentelemetry: Any) -> str:
    try:
        found = opentelemetry.get_current_span().get_span_context()
        return format_traceparent(found.trace_id, found.span_id, found.trace_flags) if found.is_valid else ""
    except AttributeError:  # it is being imported by another thread just now
        return ""
