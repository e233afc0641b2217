"""A measured row, the table of rows, and the arithmetic of medians."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

AT_MOST, AT_LEAST = "<=", ">="


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One figure, what it is compared with, and what it may be.

    Args:
        name: What was measured.
        value: The figure; None when it could not be measured.
        unit: Its unit.
        yardstick: The same of the bare thing, in the same run and unit; None for a figure that stands alone.
        limit: The budget: of the ratio when `relative`, else of the value.
        sense: Whether the limit is the most or the least.
        relative: Whether the budget is for the ratio.
        binding: Whether a miss fails the run; the budget of a row that is not binding is due later.
        note: What else there is to know.
    """

    name: str
    value: float | None
    unit: str
    baseline: float | None = None
    limit: float | None = None
    sense: str = AT_MOST
    relative: bool = False
    binding: bool = True
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure by its yardstick."""
        return self.value / self.baseline if self.value is not None and self.baseline else None

    @property
    def budget(self) -> str:
        """The budget as text: `<= 1.25 x`, `<= 45 MB`."""
        if self.limit is None:
            return ""
        return f"{self.sense} {self.limit:g} {'x' if self.relative else self.unit}"

    @property
    def within(self) -> bool:
        """Whether the figure is within its budget."""
        figure = self.ratio if self.relative else self.value
        if figure is None:
            return False
        if self.limit is None:
            return True
        return figure <= self.limit if self.sense == AT_MOST else figure >= self.limit

    @property
    def ok(self) -> bool | None:
        """Whether it is within its budget; None when it is not, but need not be yet."""
        return True if self.within else False if self.binding else None

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.value is None:
            return "not measured"
        return {True: "ok", False: "OVER BUDGET", None: "due later"}[self.ok]

    def as_json(self) -> dict[str, object]:
        """Return the row as it stands in `bench.json`."""
        return {
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "yardstick": rounded(self.baseline),
            "ratio": rounded(self.ratio),
            "budget": self.budget,
            "ok": self.ok,
            **({"note": self.note} if self.note else {}),
        }


def rounded(value: float | None) -> float | None:
    """Return a figure with four digits that count."""
    return None if value is None else float(f"{value:.4g}")


def shown(value: float | None) -> str:
    """Return a figure for people, without an exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: Iterable[FigureRow]) -> str:
    """Return rows as an aligned table with their verdicts."""
    lines = [["WHAT", "VALUE", "UNIT", "YARDSTICK", "RATIO", "BUDGET", "VERDICT"]]
    lines += [
        [row.name, shown(row.value), row.unit, shown(row.baseline), shown(row.ratio), row.budget or "-", row.verdict]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = {1, 3, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write(rows: Iterable[FigureRow], path: Path) -> None:
    """Write rows to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which `part` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


median = statistics.median
