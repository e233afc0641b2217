"""`ostler top`: calls per method, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from ostler.cli import kit
from ostler.cli.follow import until_interrupted
from ostler.cli.output import on_terminal, rich_console
from ostler.config.units import format_seconds, format_size
from ostler.messaging.rpc.endpoint import percentile
from ostler.types import CONTROL_TOPIC, MethodTraffic, TrafficCounters

if TYPE_CHECKING:
    from ostler.messaging.clients.sync_client import Client

app = kit.app(group=False)


class MethodRates(msgspec.Struct, kw_only=True):
    """A method in an interval: rates are per second, times in seconds and None if no call has ended."""

    method: str
    rate: float
    p50: float | None
    p99: float | None
    in_flight: int
    refused: float
    errors: float
    requests: int


class TrafficSnapshot(msgspec.Struct, kw_only=True):
    """The figures of an interval; `seconds` is its length."""

    host: str
    seconds: float
    rate: float
    in_flight: int
    clients: int
    events: float
    queued: dict[str, int]
    garbage: dict[str, int]
    memory: int
    memory_refused: int
    methods: list[MethodRates]


@app.command()
@kit.shows(TrafficSnapshot, lines=True)
def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two outputs")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and exit")] = False,
    count: Annotated[int, typer.Option(min=0, help="Exit after this many intervals; 0: run until Ctrl-C")] = 0,
    sort: Annotated[str, typer.Option(help="Sort by rate, p50, p99, in_flight, refused, errors or method")] = "rate",
    every: Annotated[bool, typer.Option("--all", help="Include methods without calls")] = False,
) -> None:
    """Show the rate, latency, refusals and errors of each method.

    Each output covers the interval before it. On a terminal it replaces the previous one; elsewhere, and with --json,
    outputs are appended.
    """
    if sort not in MethodRates.__struct_fields__ or sort == "requests":
        raise typer.BadParameter(f"{sort} is not one of rate, p50, p99, in_flight, refused, errors, method")
    left = 1 if once else count
    drawn = on_terminal() and not kit.json_wanted() and not once
    with until_interrupted(), kit.client() as client:
        before = read_traffic(client)
        while True:
            time.sleep(interval)
            now = read_traffic(client)
            show_snapshot(traffic_snapshot(before, now, sort, include_idle=every), redraw=drawn)
            before = now
            left -= 1
            if not left:
                return


def read_traffic(client: Client) -> TrafficCounters:
    """Return the counters of the daemon."""
    found: TrafficCounters = client.on(type=TrafficCounters).call(CONTROL_TOPIC, "traffic")
    return found


def traffic_snapshot(
    before: TrafficCounters, now: TrafficCounters, sort: str = "rate", *, include_idle: bool = False
) -> TrafficSnapshot:
    """Return the figures of the interval between two results."""
    seconds = max(now.at - before.at, 1e-6)
    lines = [
        line
        for line in _all_method_rates(before, now, seconds)
        if include_idle or line.requests or line.in_flight or line.refused
    ]
    if sort == "method":
        lines.sort(key=lambda line: line.method)
    else:
        lines.sort(key=lambda line: (-(getattr(line, sort) or 0), line.method))
    return TrafficSnapshot(
        host=now.host,
        seconds=seconds,
        rate=sum(line.rate for line in lines),
        in_flight=sum(topic.in_flight for topic in now.topics),
        clients=now.clients,
        events=max(0, now.published - before.published) / seconds,
        queued={topic.topic: topic.queued for topic in now.topics if topic.queued},
        garbage={name: count for name, count in _increments(before.garbage, now.garbage).items() if count},
        memory=now.memory,
        memory_refused=max(0, now.memory_refused - before.memory_refused),
        methods=lines,
    )


def _all_method_rates(before: TrafficCounters, now: TrafficCounters, seconds: float) -> list[MethodRates]:
    known = {(topic.topic, method.method): method for topic in before.topics for method in topic.methods}
    nothing = MethodTraffic(method="")
    found = []
    for topic in now.topics:
        for method in topic.methods:
            earlier = known.get((topic.topic, method.method), nothing)
            if method.requests < earlier.requests:  # the service was restarted meanwhile
                earlier = nothing
            found.append(_method_rates(f"{topic.topic}.{method.method}", earlier, method, seconds))
    return found


def _method_rates(name: str, before: MethodTraffic, now: MethodTraffic, seconds: float) -> MethodRates:
    ended = {bucket: count - before.buckets.get(bucket, 0) for bucket, count in now.buckets.items()}
    timed = any(ended.values())
    requests = now.requests - before.requests
    return MethodRates(
        method=name,
        rate=requests / seconds,
        p50=percentile(ended, 0.5) if timed else None,
        p99=percentile(ended, 0.99) if timed else None,
        in_flight=now.in_flight,
        refused=max(0, now.refused - before.refused) / seconds,
        errors=max(0, now.errors - before.errors) / seconds,
        requests=requests,
    )


def _increments(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {name: max(0, count - before.get(name, 0)) for name, count in now.items()}


def show_snapshot(snapshot: TrafficSnapshot, *, redraw: bool) -> None:
    """Show an interval; `redraw` replaces what the terminal shows."""
    if kit.json_wanted():
        kit.emit_item(snapshot)
        return
    if redraw:
        rich_console().clear()
    kit.heading(headline(snapshot))
    kit.show_table(snapshot.methods, COLUMNS, empty="No calls.")
    if not redraw:
        print(flush=True)  # noqa: T201 - the command's output


def headline(snapshot: TrafficSnapshot) -> str:
    """Return the totals of the daemon in one line."""
    calls = f"{_format_rate(snapshot.rate)} calls/s, {snapshot.in_flight} in flight, {snapshot.clients} clients waiting"
    parts = [f"{snapshot.host}: {calls}, {_format_rate(snapshot.events)} events/s"]
    if snapshot.queued:
        parts.append(f"queued {', '.join(f'{topic} {count}' for topic, count in sorted(snapshot.queued.items()))}")
    if snapshot.garbage:
        parts.append(f"garbage {', '.join(f'{name} {count}' for name, count in sorted(snapshot.garbage.items()))}")
    if snapshot.memory_refused:
        parts.append(
            f"{snapshot.memory_refused} refused for lack of memory, callers hold {format_size(snapshot.memory)}"
        )
    return kit.printable("; ".join(parts))


def _format_rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _format_time(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:.0f}us" if value < 1e-3 else format_seconds(value, units=2)


COLUMNS = [
    kit.Column("method", priority=0, min_width=16),
    kit.Column("calls/s", lambda line: _format_rate(line.rate), right=True, priority=0),
    kit.Column("p50", lambda line: _format_time(line.p50), right=True),
    kit.Column("p99", lambda line: _format_time(line.p99), right=True),
    kit.Column("in flight", lambda line: str(line.in_flight), right=True, priority=3),
    kit.Column("refused/s", lambda line: _format_rate(line.refused), right=True, priority=2),
    kit.Column("errors/s", lambda line: _format_rate(line.errors), right=True),
]
