"""Spans and metrics of requests, with the SDK's exporters in memory."""

import asyncio
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import EncodeError, InternalError, MethodNotFound, NotPermitted
from ostler.messaging import Access, AsyncClient, Dispatcher, Endpoint, LocalServiceClient, RpcServer, exposed
from ostler.messaging.access.policy import Policy
from ostler.messaging.observers.instrument import instrument
from ostler.messaging.observers.opentelemetry import OtelTracer
from ostler.messaging.rpc.completion import DispatcherHooks
from ostler.messaging.wire.request_context import current_trace
from ostler.testing.memory_transport import MemoryTransport
from support.async_tests import loop_fixture

# private: _spans: a span that is never ended is exported nowhere


class Outer:
    """Calls the other one."""

    client: LocalServiceClient

    @exposed()
    def work(self, ctx: object) -> str:
        inner = str(self.client.call("inner", "work"))
        self.client.cast("inner", "work")
        return inner

    @exposed()
    async def span(self, ctx: object) -> str:
        await asyncio.sleep(0)
        return format(trace.get_current_span().get_span_context().span_id, "016x")

    @exposed()
    def fail(self, ctx: object) -> None:
        raise RuntimeError("a sentence with facts in it")


class Inner:
    @exposed()
    async def work(self, ctx: object) -> str:
        return current_trace()


class World:
    """A server, its tracer, and a client that is traced as well."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    async def __aenter__(self):
        clock, inbox = SystemClock(), LoopQueue(asyncio.get_running_loop())
        self.transport = MemoryTransport()
        self.tracer = OtelTracer(clock, self.tracers, self.meters)
        hooks = DispatcherHooks(tracer=self.tracer)
        self.dispatcher = Dispatcher(Access(), clock, inbox, host="here", hooks=hooks)
        self.server = RpcServer(self.transport.serve_rpc(), self.dispatcher, inbox)
        self.pool = WorkerPool("world", 2)
        outer = Outer()
        outer.client = LocalServiceClient(self.dispatcher, inbox, topic="outer")
        self.dispatcher.registry.add_endpoint(Endpoint("outer", "here", outer, self.pool))
        self.dispatcher.registry.add_endpoint(Endpoint("inner", "here", Inner(), self.pool))
        self.server.start()
        self.client = AsyncClient(transport=self.transport)
        instrument(self.client, self.tracers)
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        self.dispatcher.close()
        self.server.close()
        self.pool.close()
        self.tracers.shutdown()
        self.meters.shutdown()

    def find_spans(self):
        return {(span.name, span.kind): span for span in self.exporter.get_finished_spans()}

    def metrics(self):
        found = {}
        for resource in self.reader.get_metrics_data().resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found[metric.name, point.attributes.get("rpc.method"), point.attributes.get("error.type")] = (
                            point
                        )
        return found


@loop_fixture
async def world():
    async with World() as opened:
        yield opened


async def test_client_server_nested_call_and_cast_are_one_trace(world) -> None:
    seen = await world.client.call("outer", "work")
    while len(world.exporter.get_finished_spans()) < 4:
        await asyncio.sleep(0.01)
    spans = world.find_spans()
    client, server = spans["outer/work", SpanKind.CLIENT], spans["outer/work", SpanKind.SERVER]
    inner, cast = spans["inner/work", SpanKind.INTERNAL], spans["inner/work", SpanKind.CONSUMER]
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert client.parent is None
    assert server.parent.span_id == client.context.span_id
    assert inner.parent.span_id == cast.parent.span_id == server.context.span_id
    assert seen.split("-")[2] == format(inner.context.span_id, "016x")
    assert server.attributes["rpc.method"] == "outer/work"
    assert server.attributes["rpc.system.name"] == "ostler"
    assert server.attributes["ostler.request_id"]


async def test_the_span_is_current_for_libraries_inside_the_method_and_not_outside(world) -> None:
    found = await world.client.call("outer", "span")
    assert found == format(world.find_spans()["outer/span", SpanKind.SERVER].context.span_id, "016x")
    assert not trace.get_current_span().get_span_context().is_valid


async def test_an_error_is_named_and_its_sentence_stays_here(world) -> None:
    with pytest.raises(InternalError):
        await world.client.call("outer", "fail")
    for kind in (SpanKind.SERVER, SpanKind.CLIENT):
        span = world.find_spans()["outer/fail", kind]
        assert span.attributes["error.type"] == "InternalError"
        assert not span.status.is_ok
    assert "sentence" not in "".join(span.to_json() for span in world.exporter.get_finished_spans())


async def test_requests_are_counted_and_made_up_names_are_no_series(world) -> None:
    for _ in range(3):
        await world.client.call("outer", "span")
    with pytest.raises(InternalError):
        await world.client.call("outer", "fail")
    for number in range(5):
        with pytest.raises(MethodNotFound):
            await world.client.call("outer", f"made_up_{number}")
    world.dispatcher.registry.set_policy(Policy({"inner.work": "nobody"}))
    with pytest.raises(NotPermitted):
        await world.client.call("inner", "work")
    found = world.metrics()
    assert found["rpc.server.call.duration", "outer/span", None].count == 3
    assert found["rpc.server.call.duration", "outer/fail", "InternalError"].count == 1
    assert found["ostler.rpc.server.active_requests", "outer/span", None].value == 0
    assert found["ostler.rpc.server.refused", None, "MethodNotFound"].value == 5
    assert found["ostler.rpc.server.refused", "inner/work", "NotPermitted"].value == 1
    assert not any("made_up" in str(key) for key in found)


async def test_what_callers_make_the_daemon_hold_is_measured(world) -> None:
    world.tracer.add_memory_gauge(lambda: 4711)
    assert world.metrics()["ostler.callers.memory", None, None].value == 4711


async def test_a_cancelled_call_ends_its_span(world) -> None:
    for _ in range(3):
        call = asyncio.create_task(world.client.call("outer", "span"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    with pytest.raises(EncodeError):
        await world.client.call("outer", "span", unfit=object())
    await world.client.call("outer", "span")
    assert not world.tracer._spans
    ends = [
        span.attributes.get("error.type")
        for span in world.exporter.get_finished_spans()
        if span.kind is SpanKind.CLIENT
    ]
    assert ends == ["Cancelled"] * 3 + ["EncodeError", None]


def test_nothing_of_it_is_imported_where_it_is_not_wanted() -> None:
    code = (
        "import sys, ostler.daemon.daemon, ostler.daemon.connectivity.messaging_stack; "
        "print('opentelemetry' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
