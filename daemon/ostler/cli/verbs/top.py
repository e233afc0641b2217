"""`ostler top`: what the services are busy with, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from ostler.cli import kit
from ostler.cli.following import until_told
from ostler.cli.output import console, on_terminal
from ostler.config.units import format_size
from ostler.messaging.rpc.stats import percentile
from ostler.types import CONTROL_TOPIC, MethodTraffic, Traffic

if TYPE_CHECKING:
    from ostler.messaging.client import Client

app = kit.app(group=False)


class Line(msgspec.Struct, kw_only=True):
    """One method in one interval: rates are a second, times in seconds and None when none has ended."""

    method: str
    rate: float
    p50: float | None
    p99: float | None
    in_flight: int
    refused: float
    errors: float
    requests: int


class Picture(msgspec.Struct, kw_only=True):
    """All of one interval; `seconds` is its length."""

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
    methods: list[Line]


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two pictures")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and end")] = False,
    count: Annotated[int, typer.Option(min=0, help="End after this many pictures; 0 goes on until Ctrl-C")] = 0,
    sort: Annotated[str, typer.Option(help="By rate, p50, p99, in_flight, refused, errors or method")] = "rate",
    every: Annotated[bool, typer.Option("--all", help="Also methods that nothing happens to")] = False,
) -> None:
    """Show how often each method is called, how long that takes, what is refused and what fails.

    Each picture is of the interval before it. On a terminal it is drawn over the one before; elsewhere, and with
    --json, they follow each other.
    """
    if sort not in Line.__struct_fields__ or sort == "requests":
        raise typer.BadParameter(f"{sort} is none of rate, p50, p99, in_flight, refused, errors, method")
    left = 1 if once else count
    drawn = on_terminal() and not kit.json_wanted() and not once
    with until_told(), kit.client() as client:
        before = ask(client)
        while True:
            time.sleep(interval)
            now = ask(client)
            show(picture(before, now, sort, every=every), over=drawn)
            before = now
            left -= 1
            if not left:
                return


def ask(client: Client) -> Traffic:
    """Return the counters of the daemon."""
    found: Traffic = client.on(type=Traffic).call(CONTROL_TOPIC, "traffic")
    return found


def picture(before: Traffic, now: Traffic, sort: str = "rate", *, every: bool = False) -> Picture:
    """Return what happened between two answers."""
    seconds = max(now.at - before.at, 1e-6)
    lines = [line for line in _lines(before, now, seconds) if every or line.requests or line.in_flight or line.refused]
    if sort == "method":
        lines.sort(key=lambda line: line.method)
    else:
        lines.sort(key=lambda line: (-(getattr(line, sort) or 0), line.method))
    return Picture(
        host=now.host,
        seconds=seconds,
        rate=sum(line.rate for line in lines),
        in_flight=sum(topic.in_flight for topic in now.topics),
        clients=now.clients,
        events=max(0, now.published - before.published) / seconds,
        queued={topic.topic: topic.queued for topic in now.topics if topic.queued},
        garbage={name: count for name, count in _grown(before.garbage, now.garbage).items() if count},
        memory=now.memory,
        memory_refused=max(0, now.memory_refused - before.memory_refused),
        methods=lines,
    )


def _lines(before: Traffic, now: Traffic, seconds: float) -> list[Line]:
    known = {(topic.topic, method.method): method for topic in before.topics for method in topic.methods}
    nothing = MethodTraffic(method="")
    found = []
    for topic in now.topics:
        for method in topic.methods:
            earlier = known.get((topic.topic, method.method), nothing)
            if method.requests < earlier.requests:  # the service was restarted meanwhile
                earlier = nothing
            found.append(_line(f"{topic.topic}.{method.method}", earlier, method, seconds))
    return found


def _line(name: str, before: MethodTraffic, now: MethodTraffic, seconds: float) -> Line:
    ended = {bucket: count - before.buckets.get(bucket, 0) for bucket, count in now.buckets.items()}
    timed = any(ended.values())
    requests = now.requests - before.requests
    return Line(
        method=name,
        rate=requests / seconds,
        p50=percentile(ended, 0.5) if timed else None,
        p99=percentile(ended, 0.99) if timed else None,
        in_flight=now.in_flight,
        refused=max(0, now.refused - before.refused) / seconds,
        errors=max(0, now.errors - before.errors) / seconds,
        requests=requests,
    )


def _grown(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {name: max(0, count - before.get(name, 0)) for name, count in now.items()}


def show(found: Picture, *, over: bool) -> None:
    """Show one picture; `over` draws it over what the terminal shows."""
    if kit.json_wanted():
        print(kit.to_json(found, indent=0), flush=True)  # noqa: T201 - the command's output
        return
    if over:
        console().clear()
    kit.heading(headline(found))
    kit.show_table(found.methods, COLUMNS, empty="Nobody calls anything.")
    if not over:
        print(flush=True)  # noqa: T201 - the command's output


def headline(found: Picture) -> str:
    """Return the whole daemon in one line."""
    calls = f"{_rate(found.rate)} calls/s, {found.in_flight} in flight, {found.clients} clients waiting"
    parts = [f"{found.host}: {calls}, {_rate(found.events)} events/s"]
    if found.queued:
        parts.append(f"queued {', '.join(f'{topic} {count}' for topic, count in sorted(found.queued.items()))}")
    if found.garbage:
        parts.append(f"garbage {', '.join(f'{name} {count}' for name, count in sorted(found.garbage.items()))}")
    if found.memory_refused:
        parts.append(f"{found.memory_refused} refused for want of memory, callers hold {format_size(found.memory)}")
    return kit.printable("; ".join(parts))


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _time(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:.0f}us" if value < 1e-3 else f"{value * 1e3:.1f}ms" if value < 1 else f"{value:.1f}s"


COLUMNS = [
    kit.Column("method"),
    kit.Column("calls/s", lambda line: _rate(line.rate), right=True),
    kit.Column("p50", lambda line: _time(line.p50), right=True),
    kit.Column("p99", lambda line: _time(line.p99), right=True),
    kit.Column("in flight", lambda line: str(line.in_flight), right=True),
    kit.Column("refused/s", lambda line: _rate(line.refused), right=True),
    kit.Column("errors/s", lambda line: _rate(line.errors), right=True),
]
