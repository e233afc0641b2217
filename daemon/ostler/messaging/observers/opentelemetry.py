"""Spans and metrics of requests, through the API of OpenTelemetry. Imported only where that is installed and wanted.

The SDK that the process was started with decides where they go; without one the API does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import ostler
from ostler.messaging.wire.envelope import CAST, FANOUT
from ostler.messaging.wire.request_context import format_traceparent
from ostler.types import LOCAL_PEER

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ostler.clock import Clock
    from ostler.errors import OstlerError
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.wire.request import CallRequest, ResultCallback

SYSTEM = "ostler"
_INSTRUMENTATION_NAME = "ostler.messaging"
# The boundaries that the semantic conventions advise for durations, in seconds, and finer ones below.
_DURATION_BUCKETS = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
]  # fmt: skip


class OtelTracer:
    """Makes a span of each request that is run, and counts it; implements `RequestTracer`. On the loop's thread.

    Spans carry names, ids and the error's name; never arguments, results or an error's sentence.

    Args:
        clock: The source of time.
        tracers: Where spans go; by default what the SDK of this process has set.
        meters: Where metrics go; likewise.
    """

    def __init__(
        self, clock: Clock, tracers: TracerProvider | None = None, meters: MeterProvider | None = None
    ) -> None:
        self._clock = clock
        self._tracer = trace.get_tracer(_INSTRUMENTATION_NAME, ostler.__version__, tracers)
        meter = metrics.get_meter(_INSTRUMENTATION_NAME, ostler.__version__, meters)
        self._durations = meter.create_histogram(
            "rpc.server.call.duration", unit="s", description="Time from a request's arrival to its completion",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )  # fmt: skip
        self._active = meter.create_up_down_counter(
            "ostler.rpc.server.active_requests", unit="{request}", description="Requests in progress"
        )
        self._refused = meter.create_counter(
            "ostler.rpc.server.refused", unit="{request}", description="Requests that were refused before they started"
        )
        self._meter = meter
        self._spans: dict[Call, Span] = {}

    def add_memory_gauge(self, held_bytes: Callable[[], int]) -> None:
        """Have the memory that callers make the daemon hold measured; `held_bytes` returns its bytes, on any thread."""
        self._meter.create_observable_gauge(
            "ostler.callers.memory",
            callbacks=[lambda _options: [metrics.Observation(held_bytes())]],
            unit="By",
            description="Memory that the daemon holds for its callers",
        )

    @contextmanager
    def begin(self, call: Call) -> Iterator[None]:
        """See `RequestTracer.begin`."""
        incoming = call.context.trace
        parent = _propagator.extract({"traceparent": incoming}) if incoming else otel_context.Context()
        cast = bool(call.request.flags & (CAST | FANOUT))
        span = self._tracer.start_span(
            f"{call.request.topic}/{call.request.method}",
            context=parent,
            kind=_span_kind(call, cast),
            attributes=_span_attributes(call, cast),
        )
        found = span.get_span_context()
        if found.is_valid:
            call.context.trace = format_traceparent(found.trace_id, found.span_id, found.trace_flags)
        self._spans[call] = span
        self._active.add(1, _metric_attributes(call))
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        try:
            yield
        finally:
            otel_context.detach(token)

    def end(self, call: Call, error: OstlerError | None) -> None:
        """See `RequestTracer.end`."""
        span = self._spans.pop(call, None)
        if span is None:
            return
        labels = _metric_attributes(call)
        self._active.add(-1, labels)
        if error is not None:
            labels = {**labels, "error.type": type(error).__name__}
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        self._durations.record(self._clock.monotonic() - call.arrived_at, labels)
        span.end()

    def refused(self, call: Call, error: OstlerError) -> None:
        """See `RequestTracer.refused`."""
        # Names that were made up would be a new series each.
        known = _metric_attributes(call) if call.is_resolved else {"rpc.system.name": SYSTEM}
        self._refused.add(1, {**known, "error.type": type(error).__name__})


_propagator = TraceContextTextMapPropagator()


def _span_kind(call: Call, cast: bool) -> SpanKind:
    if cast:
        return SpanKind.CONSUMER
    return SpanKind.INTERNAL if call.peer is LOCAL_PEER else SpanKind.SERVER


def _metric_attributes(call: Call) -> dict[str, Any]:
    return {"rpc.system.name": SYSTEM, "rpc.method": f"{call.request.topic}/{call.request.method}"}


def _span_attributes(call: Call, cast: bool) -> dict[str, Any]:
    found = {
        **_metric_attributes(call),
        "ostler.request_id": call.request.request_id,
        "ostler.role": str(call.context.role),
    }
    if cast:
        found["messaging.operation.type"] = "process"
    if call.peer is not LOCAL_PEER:
        found["enduser.id"] = call.peer.name
    return found


class OtelClientTracer:
    """Makes a span of each request that a client makes; implements `ClientTracer`.

    Args:
        tracers: Where spans go; by default what the SDK of this process has set.
    """

    def __init__(self, tracers: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(_INSTRUMENTATION_NAME, ostler.__version__, tracers)

    def begin(self, request: CallRequest, trace_now: str, on_result: ResultCallback) -> tuple[str, ResultCallback]:
        """See `ClientTracer.begin`."""
        parent = _propagator.extract({"traceparent": trace_now}) if trace_now else None
        span = self._tracer.start_span(
            f"{request.topic}/{request.method}",
            context=parent,
            kind=SpanKind.PRODUCER if request.flags & (CAST | FANOUT) else SpanKind.CLIENT,
            attributes={"rpc.system.name": SYSTEM, "rpc.method": f"{request.topic}/{request.method}"},
        )
        found = span.get_span_context()
        now = format_traceparent(found.trace_id, found.span_id, found.trace_flags) if found.is_valid else trace_now
        return now, _SpanEndingCallback(span, on_result)

    def end(self, on_result: ResultCallback, error: Exception) -> None:
        """See `ClientTracer.end`."""
        if isinstance(on_result, _SpanEndingCallback):
            on_result.end(error)


class _SpanEndingCallback:
    """Ends a span with the request that it is of, once."""

    def __init__(self, span: Span, on_result: ResultCallback) -> None:
        self._span: Span | None = span
        self._on_result = on_result

    def __call__(self, result: Any, error: Exception | None) -> None:
        self.end(error)
        self._on_result(result, error)

    def end(self, error: Exception | None) -> None:
        """End the span, if it has not been."""
        span, self._span = self._span, None
        if span is None:
            return
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end()
