"""The request's id and its trace, followed through the real daemon: log lines, nested calls, threads, spans."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess, wait_for

from ostler import Client, OstlerError, trace_context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CONFIG = """
[services.vault]
manager = "audited_managers:VaultManager"
[services.vault.drivers.one]
driver = "audited_managers:LoggingDriver"
[services.echo]
manager = "audited_managers:AuditedEchoManager"
[log]
format = "%s"
"""
SPANS = '''
"""Sets up the SDK as `opentelemetry-instrument` does, with spans and metrics into files."""
import os, json, atexit
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                print(span.to_json(indent=None), file=file)
        return SpanExportResult.SUCCESS

if "run" in os.sys.orig_argv:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    trace.set_tracer_provider(provider)
'''


def lines(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]


WALKED = {
    "walk in a thread of the pool",
    "the driver looks at walk",
    "walk in a thread of its own",
    "walk in another service",
    "walk in what was cast",
    "walk in what was fanned out",
    "walk on the loop",
    "walk in a task",
    "walk in a thread of asyncio's",
}


def walk(daemon: DaemonProcess) -> dict[str, str]:
    with Client(root=daemon.root) as client, trace_context(PARENT):
        found: dict[str, str] = client.call("vault", "walk")
        client.call("vault", "walk_async")
    for message in WALKED:  # what was cast ends later than the calls, and the log is written later than either
        daemon.wait_log(message)
    return found


def test_every_line_of_a_request_carries_its_id_and_trace(make_daemon) -> None:
    daemon = make_daemon(CONFIG % "json").start()
    found = walk(daemon)
    assert set(found.values()) == {PARENT}
    walked = [line for line in lines(daemon) if "walk" in line["message"]]
    assert {line["message"] for line in walked} == WALKED
    assert {line["fields"]["trace_id"] for line in walked} == {TRACE}
    ids = {line["message"]: line["fields"]["request_id"] for line in walked}
    first, second = ids["walk in a thread of the pool"], ids["walk on the loop"]
    assert first != second
    assert ids["the driver looks at walk"] == ids["walk in a thread of its own"] == first
    assert ids["walk in what was cast"].startswith(f"{first}.")
    assert ids["walk in a task"] == ids["walk in a thread of asyncio's"] == second
    assert all("request_id" not in line.get("fields", {}) for line in lines(daemon) if "ready" in line["message"])


@pytest.mark.parametrize("method", ["items", "items_async"])
def test_a_stream_is_a_request_like_any_other(traced, method) -> None:
    daemon, path = traced
    with Client(root=daemon.root) as client, trace_context(PARENT):
        stream = iter(client.stream("vault", method, password="hunter2-canary"))
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OstlerError, match=r"no more for \*\*\*"):
            next(stream)
    daemon.wait_log("item 2 with")
    walked = [line for line in lines(daemon) if line["message"].startswith("item ")]
    assert [line["message"] for line in walked] == [f"item {number} with ***" for number in range(3)]
    assert {line["fields"]["trace_id"] for line in walked} == {TRACE}
    assert len({line["fields"]["request_id"] for line in walked}) == 1
    (row,) = daemon.json("audit", "--method", f"vault.{method}")
    assert (row["result"], row["request_id"]) == ("InternalError", walked[0]["fields"]["request_id"])
    assert row["arguments"] == '{"password":"***"}'
    (span,) = wait_for(lambda: [span for span in spans(path) if span["name"] == f"vault/{method}"], "the span")
    assert span["context"]["trace_id"] == f"0x{TRACE}"
    assert "hunter2" not in daemon.log + path.read_text() + json.dumps(row)


def test_lines_for_people_carry_them_too(make_daemon) -> None:
    daemon = make_daemon(CONFIG % "text").start()
    walk(daemon)
    for line in [line for line in daemon.log.splitlines() if "walk" in line]:
        assert re.search(rf"\[request_id=\S+ trace_id={TRACE}", line), line


def test_a_trace_that_is_none_is_counted_and_refuses_nothing(make_daemon) -> None:
    daemon = make_daemon(CONFIG % "json").start()
    from ostler.messaging.wire.request_context import Context, serving

    context = Context("test", "test")
    context.trace = "00-rubbish"
    with Client(root=daemon.root) as client, serving(context):
        assert client.call("vault", "look") == ""
        assert client.call("ostler", "traffic")["bad_traces"] >= 1


def spans(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def traced(make_daemon, tmp_path) -> tuple[DaemonProcess, Path]:
    (tmp_path / "sitecustomize.py").write_text(SPANS)
    daemon = make_daemon(CONFIG % "json" + "[telemetry]\notel = true\n", {"SPANS": str(tmp_path / "spans")})
    daemon.environ["PYTHONPATH"] += f":{tmp_path}"
    return daemon.start(), tmp_path / "spans"


def test_client_daemon_and_nested_call_are_one_trace(traced) -> None:
    daemon, path = traced
    found = walk(daemon)
    wanted = {"vault/walk", "vault/walk_async", "echo/where", "echo/note"}
    wait_for(lambda: len([span for span in spans(path) if span["name"] in wanted]) == 6, "the spans")
    by_name = {span["name"]: span for span in spans(path) if span["name"] in wanted}
    assert {span["context"]["trace_id"] for span in by_name.values()} == {f"0x{TRACE}"}
    outer = next(span for span in spans(path) if span["name"] == "vault/walk")
    assert outer["parent_id"] == "0x00f067aa0ba902b7"
    assert outer["kind"] == "SpanKind.SERVER"
    own = outer["context"]["span_id"].removeprefix("0x")
    # The method, its driver and what it calls see the span of the request, which is what they are part of.
    assert found["thread"] == found["driver"] == f"00-{TRACE}-{own}-01"
    nested = [span for span in spans(path) if span["name"] == "echo/note"]
    assert {span["parent_id"] for span in nested} == {f"0x{own}"}
    assert {span["kind"] for span in nested} == {"SpanKind.CONSUMER"}
    assert outer["attributes"]["rpc.system.name"] == "ostler"
    assert outer["attributes"]["rpc.method"] == "vault/walk"


def test_a_span_says_the_error_and_nothing_secret(traced) -> None:
    daemon, path = traced
    with Client(root=daemon.root) as client:
        for name in ("raise", "refuse"):
            with pytest.raises(Exception, match=r"\*\*\*"):
                client.call("vault", "put", name=name, password="hunter2-canary")
    wait_for(lambda: len([span for span in spans(path) if span["name"] == "vault/put"]) == 2, "the spans")
    errors = [span["attributes"]["error.type"] for span in spans(path) if span["name"] == "vault/put"]
    assert errors == ["InternalError", "InvalidInput"]
    assert "hunter2" not in path.read_text()
