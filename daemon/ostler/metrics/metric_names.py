"""Which names, labels and buckets of metrics are accepted: the conventions of Prometheus."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence

from ostler.bounds import NAME_LIMIT, TEXT_LIMIT, safe_repr, safe_str
from ostler.errors import ContractError
from ostler.metrics.families import MetricKind

DEFAULT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds for durations of requests, in seconds."""
MAX_BUCKETS = 50
MAX_LABELS = 8
_match_name = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*").fullmatch
_UNITS = ("seconds", "bytes", "ratio", "celsius", "meters", "volts", "amperes", "joules", "grams")
_BASE_UNITS = {
    "ms": "seconds", "us": "seconds", "ns": "seconds", "millis": "seconds", "milliseconds": "seconds",
    "microseconds": "seconds", "nanoseconds": "seconds", "minutes": "seconds", "hours": "seconds", "days": "seconds",
    "kb": "bytes", "mb": "bytes", "gb": "bytes", "kib": "bytes", "mib": "bytes", "gib": "bytes", "bits": "bytes",
    "kilobytes": "bytes", "megabytes": "bytes", "gigabytes": "bytes", "percent": "ratio", "percentage": "ratio",
    "fahrenheit": "celsius", "kelvin": "celsius", "kilometers": "meters", "millivolts": "volts",
}  # fmt: skip
"""What is not a base unit, with the one to use."""
_RESERVED_SUFFIXES = ("bucket", "count", "sum", "info", "created")
_RESERVED_LABELS = frozenset({"service", "driver", "host", "le", "quantile", "job", "instance"})
_RESERVED_PREFIXES = ("ostler_", "process_", "python_")


def check_declaration(
    kind: MetricKind, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
) -> None:
    """Refuse what Prometheus, or those who write queries, would have trouble with.

    Raises:
        ContractError: The name, a label or a bucket violates the conventions; says which and what to use instead.
    """
    if type(name) is not str:  # of a class derived from it, too: what it is called may be anything when it is read
        raise _refused(name, "its name is not a text", "give a plain `str`")
    _check_name(kind, name)
    _check_help(name, help_text)
    _check_labels(name, labels)
    if kind == "histogram":
        _check_bounds(name, bounds)


def _check_help(name: str, help_text: str) -> None:
    if type(help_text) is not str or not help_text.strip():
        raise _refused(name, "it has no help text", "say in a sentence what is counted")
    if not help_text.isprintable():
        raise _refused(name, "its help text is not a line of printable text", "say in a sentence what is counted")
    if len(help_text) > TEXT_LIMIT:
        raise _refused(name, f"its help text has {len(help_text)} characters", f"use up to {TEXT_LIMIT}")


def _check_labels(name: str, labels: Sequence[str]) -> None:
    if isinstance(labels, str):
        raise _refused(name, "its labels are a text", f"give a list: `labels=[{labels!r}]`")
    for label in labels:
        if type(label) is not str or not _match_name(label) or len(label) > NAME_LIMIT:
            raise _refused(name, f"its label {label!r} is not a valid name", "use lower case letters, digits and `_`")
        if label in _RESERVED_LABELS:
            raise _refused(name, f"its label {label!r} is reserved", "choose another name for it")
    if len(set(labels)) != len(labels) or len(labels) > MAX_LABELS:
        raise _refused(name, f"its labels are {', '.join(labels)}", f"use up to {MAX_LABELS} different labels")


def _check_name(kind: MetricKind, name: str) -> None:
    if not _match_name(name) or len(name) > NAME_LIMIT:
        raise _refused(name, "it is not a valid name", "use lower case letters and digits, joined by single `_`")
    if name.startswith(_RESERVED_PREFIXES):
        raise _refused(name, f"the prefix {name.partition('_')[0]}_ is reserved", "begin it with the plugin's name")
    words = name.split("_")
    if (kind == "counter") != (words[-1] == "total"):
        advice = f"call it {name}_total" if kind == "counter" else "leave `_total` to counters"
        raise _refused(name, f"a {kind} must {'' if kind == 'counter' else 'not '}end with `_total`", advice)
    if words[-1] in _RESERVED_SUFFIXES:
        raise _refused(name, f"the suffix `_{words[-1]}` is reserved", "leave it out, or put another word last")
    if wrong := next((word for word in words[-2:] if word in _BASE_UNITS), ""):
        raise _refused(name, f"{wrong} is not a base unit", f"measure in {_BASE_UNITS[wrong]}, and name it so")


def _check_bounds(name: str, bounds: Sequence[float]) -> None:
    if not 0 < len(bounds) <= MAX_BUCKETS or not all(map(_is_finite, bounds)):
        raise _refused(name, "its buckets are not valid", f"give 1 to {MAX_BUCKETS} finite upper bounds")
    if any(low >= high for low, high in itertools.pairwise(bounds)):
        raise _refused(name, "its buckets do not ascend", "give the upper bounds in ascending order")


def _is_finite(bound: object) -> bool:
    return type(bound) in (int, float) and -sys.float_info.max <= bound <= sys.float_info.max  # type: ignore[operator] # as was just looked at


def unit_of(name: str) -> str:
    """Return the base unit that a valid name ends with, before `_total`; empty without one."""
    last = name.removesuffix("_total").rpartition("_")[2]
    return last if last in _UNITS else ""


def _refused(name: object, what: str, advice: str) -> ContractError:
    return ContractError(
        f"metric {safe_repr(name, NAME_LIMIT)} was refused: {what}", hint=advice, metric=safe_str(name)
    )
