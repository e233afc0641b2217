"""`ostler metrics`: what the daemon, managers and drivers have counted."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple

import typer

from ostler.cli import kit
from ostler.metrics.families import MetricFamily, MetricSeries
from ostler.types import CONTROL_TOPIC

app = kit.app(group=False)


class MetricRow(NamedTuple):
    """A line of the table."""

    name: str
    labels: str
    value: str


COLUMNS = [
    kit.Column("metric", "name", priority=0, key=True, min_width=30),
    kit.Column("labels", priority=0, min_width=20),
    kit.Column("value", right=True, priority=0),
]


@app.command()
@kit.view
@kit.shows(MetricFamily, many=True)
def metrics(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or their beginnings; `*` is any text", show_default=False)
    ] = None,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Show the text format of Prometheus, for files that it reads")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Include values that are 0")] = False,
    host: Annotated[str | None, typer.Option(help="The metrics of this host", show_default=False)] = None,
) -> None:
    """Show what the daemon, its services and their plugins have counted since their start.

    Of a histogram the table shows how many observations there were, and their mean. Rates are in `ostler top`.
    """
    with kit.client() as client:
        found = client.on(type=list[MetricFamily], host=host).call(CONTROL_TOPIC, "metrics")
    wanted = [family for family in found if _is_wanted(family.name, names or [])]
    if prometheus:
        from ostler.metrics.text_format import prometheus_text  # 1 ms: only for this format

        for line in prometheus_text(wanted).splitlines():
            kit.say(line)
    elif kit.json_wanted():
        kit.emit(wanted)
    else:
        kit.show_table(_rows(wanted, include_zero=every), COLUMNS, empty="No metrics with a value other than 0.")


def _is_wanted(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(name, f"{pattern}*") for pattern in patterns)


def _rows(families: list[MetricFamily], *, include_zero: bool) -> Iterator[MetricRow]:
    for family in families:
        for series in family.series:
            if include_zero or series.value or any(series.counts):
                labels = ", ".join(f"{name}={value}" for name, value in zip(family.labels, series.labels, strict=True))
                yield MetricRow(family.name, labels or "-", _value_text(family, series))


def format_number(value: float) -> str:
    """Return a number as people read it: whole ones and moments in full, others to four digits."""
    return f"{value:.15g}" if value == round(value, 3) or abs(value) >= 1000 else f"{value:.4g}"


def _value_text(family: MetricFamily, series: MetricSeries) -> str:
    if family.kind != "histogram":
        return format_number(series.value)
    count = sum(series.counts)
    return f"{count}, mean {series.value / count:.3g}" if count else "0"
