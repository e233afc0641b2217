"""The text format of Prometheus, which the textfile collector of node_exporter reads as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ostler.metrics.families import MetricFamily, MetricSeries


def prometheus_text(families: Iterable[MetricFamily]) -> str:
    """Return metrics in the text format of Prometheus, version 0.0.4."""
    return "".join(line + "\n" for family in families for line in _family_lines(family))


def _family_lines(family: MetricFamily) -> Iterator[str]:
    yield f"# HELP {family.name} {_escape(family.help, quotes=False)}"
    yield f"# TYPE {family.name} {family.kind}"
    for series in family.series:
        if family.kind == "histogram":
            yield from _histogram_lines(family, series)
        else:
            yield f"{family.name}{_label_text(family.labels, series.labels)} {_number(series.value)}"


def _histogram_lines(family: MetricFamily, series: MetricSeries) -> Iterator[str]:
    total = 0
    for bound, count in zip([*family.bounds, math.inf], series.counts, strict=True):
        total += count
        labels = _label_text(
            [*family.labels, "le"], [*series.labels, "+Inf" if math.isinf(bound) else repr(float(bound))]
        )
        yield f"{family.name}_bucket{labels} {total}"
    labels = _label_text(family.labels, series.labels)
    yield f"{family.name}_sum{labels} {_number(series.value)}"
    yield f"{family.name}_count{labels} {total}"


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}"


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
