"""What was measured of each peer, the table of peers, and the arithmetic; nothing here runs anything."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rows import median, percentile, rounded, shown

_HEAD = ("PEER", "VERSION", "P50 us", "P99 us", "RATIO", "64 IN FLIGHT/s", "RATIO", "EVENTS/s", "NOTES")
_RIGHT = frozenset(range(2, 8))


@dataclass
class Figures:
    """The rounds of one peer.

    Args:
        name: The peer.
        version: Its version, and that of what it talks through.
        settings: Transport, acknowledgement, persistence.
        missing: Why it was not measured; "" when it was.
    """

    name: str
    version: str = ""
    settings: str = ""
    missing: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)
    lost: int = 0

    def note_calls(self, prefix: str, seconds: list[float]) -> None:
        """Keep the p50 and p99 of a round, in microseconds."""
        self.note(f"{prefix}p50", 1e6 * percentile(seconds, 0.5))
        self.note(f"{prefix}p99", 1e6 * percentile(seconds, 0.99))

    def note(self, figure: str, value: float) -> None:
        """Keep a figure of a round."""
        self.rounds.setdefault(figure, []).append(value)

    def value(self, figure: str) -> float | None:
        """Return the median of the rounds."""
        return median(self.rounds[figure]) if figure in self.rounds else None

    def ratio(self, figure: str, bare: Figures) -> float | None:
        """Return the median by that of the bare echo."""
        value, yardstick = self.value(figure), bare.value(figure)
        return value / yardstick if value is not None and yardstick else None

    @property
    def notes(self) -> str:
        """What a reader has to know."""
        if self.missing:
            return f"not measured: {self.missing}"
        return self.settings + (f"; {self.lost:,} events lost" if self.lost else "")

    def cells(self, bare: Figures) -> list[str]:
        """Return the row of the table."""
        slow = [self.value("p50"), self.value("p99"), self.ratio("p50", bare)]
        fast = [self.value("rate"), self.ratio("rate", bare), self.value("events")]
        return [self.name, self.version or "-", *map(shown, slow + fast), self.notes]

    def as_json(self, bare: Figures) -> dict[str, object]:
        """Return the row as it stands in `bench-peers.json`."""
        return {
            "name": self.name,
            "version": self.version,
            "p50_us": rounded(self.value("p50")),
            "p99_us": rounded(self.value("p99")),
            "p50_ratio": rounded(self.ratio("p50", bare)),
            "in_flight_per_s": rounded(self.value("rate")),
            "in_flight_ratio": rounded(self.ratio("rate", bare)),
            "events_per_s": rounded(self.value("events")),
            "events_lost": self.lost,
            "bare_p50_us": rounded(self.value("bare p50")),
            "bare_in_flight_per_s": rounded(self.value("bare rate")),
            "notes": self.notes,
        }


def table(bare: Figures, peers: Iterable[Figures]) -> str:
    """Return the peers as an aligned table, the bare echo first."""
    lines = [list(_HEAD), *(row.cells(bare) for row in (bare, *peers))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write(bare: Figures, peers: Iterable[Figures], path: Path) -> None:
    """Write the rows to a JSON file, the bare echo first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.as_json(bare) for row in (bare, *peers)], indent=2) + "\n", encoding="utf-8")


def bare_of(measured: Iterable[Figures]) -> Figures:
    """Return the row of the bare echo: the rounds beside all peers.

    One yardstick for all: a single round of so short a thing depends on which core the kernel wakes.
    """
    bare = Figures("bare pyzmq", settings="unix socket; bytes, nothing else; events: bare PUB/SUB")
    for peer in measured:
        for figure in ("p50", "p99", "rate"):
            for value in peer.rounds.get(f"bare {figure}", ()):
                bare.note(figure, value)
    return bare


def count_for(seconds: float, each: float, least: int, most: int) -> int:
    """Return how many, at `each` seconds apiece, take about so long."""
    return max(least, min(most, int(seconds / each))) if each > 0 else most


def why_missing(needs: Iterable[str], versions: dict[str, str], reasons: dict[str, str]) -> str:
    """Return why a peer cannot be measured, "" when it can.

    Args:
        needs: The libraries and programs it needs; "" for none.
        versions: Those there are, with their versions.
        reasons: Why others are not to be had, as far as it is known.
    """
    lacking = [need for need in needs if need and need not in versions]
    return "; ".join(f"{need}: {reasons.get(need, 'it could not be installed')}" for need in lacking)
