"""The formats of Prometheus: its text format, and OpenMetrics, which has examples as well.

The client library of Prometheus takes some six times as long, for it looks at each name and label of each line, which
here are known to be valid; its parsers hold this to the formats in tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from ostler.metrics.families import Exemplar, MetricFamily, MetricSeries

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text format."""
OPENMETRICS_TEXT = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The content type of OpenMetrics."""
_Write = Callable[[str], None]


def prometheus_text(families: Iterable[MetricFamily], *, openmetrics: bool = False) -> str:
    """Return metrics as Prometheus reads them. Any thread; takes about a millisecond for a thousand lines.

    Args:
        families: The metrics, as the method `metrics` of the topic `ostler` returns them.
        openmetrics: Whether in the format OpenMetrics 1.0 (`OPENMETRICS_TEXT`), else in the text format 0.0.4
            (`PROMETHEUS_TEXT`).
    """
    lines: list[str] = []
    for family in families:
        _write_head(lines.append, family, openmetrics=openmetrics)
        if family.kind == "histogram":
            _write_histogram(lines.append, family, openmetrics=openmetrics)
        else:
            _write_values(lines.append, family)
    if openmetrics:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines)


def _write_head(write: _Write, family: MetricFamily, *, openmetrics: bool) -> None:
    # In OpenMetrics `_total` belongs to the sample and not to the metric, and help is escaped as labels are.
    name = family.name.removesuffix("_total") if openmetrics and family.kind == "counter" else family.name
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    write(f"# HELP {name} {text.replace(chr(34), chr(92) + chr(34)) if openmetrics else text}")
    write(f"# TYPE {name} {family.kind}")
    if openmetrics and family.unit:
        write(f"# UNIT {name} {family.unit}")


def _write_values(write: _Write, family: MetricFamily) -> None:
    name, names = family.name, family.labels
    for series in family.series:
        labels = _label_text(names, series.labels)
        write(f"{name}{{{labels}}} {number_text(series.value)}" if labels else f"{name} {number_text(series.value)}")


def _write_histogram(write: _Write, family: MetricFamily, *, openmetrics: bool) -> None:
    name, names = family.name, family.labels
    bounds = [number_text(bound, whole=False) for bound in (*family.bounds, math.inf)]
    for series in family.series:
        labels = _label_text(names, series.labels)
        begin = f'{name}_bucket{{{labels}{"," if labels else ""}le="'
        examples = _example_texts(series) if openmetrics and series.exemplars else {}
        total = 0
        for index, count in enumerate(series.counts):
            total += count
            write(f'{begin}{bounds[index]}"}} {total}{examples.get(index, "")}')
        end = f"{{{labels}}}" if labels else ""
        write(f"{name}_count{end} {total}")
        write(f"{name}_sum{end} {number_text(series.value)}")


def _example_texts(series: MetricSeries) -> dict[int, str]:
    return {index: _example_text(each) for index, each in series.exemplars.items()}


def _example_text(found: Exemplar) -> str:
    return f' # {{trace_id="{_escape(found.trace_id)}"}} {number_text(found.value)} {found.at:.3f}'


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join([f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)])


def _escape(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return text


def number_text(value: float, *, whole: bool = True) -> str:
    """Return a number as Prometheus reads it.

    Args:
        value: The number.
        whole: Whether whole numbers are written without a point.
    """
    if math.isfinite(value):
        return str(int(value)) if whole and value == int(value) and abs(value) < 2**53 else repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
