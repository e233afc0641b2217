"""`make bench`: measures the budgets of DESIGN 13 that exist by now, and says for each whether it is kept.

Each figure is taken in turns with its yardstick, some rounds of both, and is the median of the rounds: what disturbs
the machine disturbs both. The rows go to `build/bench.json` as well. The exit code is 1 when a budget that is due is
missed or cannot be measured.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from rows import FigureRow, table, write

PARTS = {
    "startup": "exec to READY, ostler status",
    "idle": "memory and CPU of an idle daemon",
    "periodic_tasks": "10,000 periodic tasks",
    "calls": "calls beside a bare echo",
    "call_breakdown": "one call, step by step",
    "events": "events beside a bare PUB",
    "streams": "streams beside a bare PUSH",
    "gateway": "calls by the gateway beside the bare way between two loops",
    "commits": "group commit beside one commit each",
    "heartbeats": "heartbeats during 50,000 writes",
    "operations": "submits beside one commit each",
    "restored": "exec to READY with many operations",
    "lag": "changes on another host to a scheduler",
    "driver_calls": "drivers in processes of their own",
}
REQUIRED_PARTS = frozenset({"startup", "idle", "periodic_tasks", "calls", "events", "streams", "lag"})
OUTPUT = Path(__file__).parents[2] / "build" / "bench.json"


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; return the exit code."""
    chosen = _parser().parse_args(arguments)
    load = os.getloadavg()[0]
    print(f"Measuring on {os.cpu_count()} cores, load {load:.2f}; this takes about two minutes.", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="ostler-bench-"))
    rows: list[FigureRow] = []
    try:
        for part in chosen.only or PARTS:
            began = time.monotonic()
            print(f"  {PARTS[part]} ...", end="", flush=True)
            rows += measured(part, folder, chosen.quick)
            print(f" {time.monotonic() - began:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(rows)}\n")
    write(rows, chosen.output)
    over = [row.name for row in rows if row.ok is False]
    later = sum(row.ok is None for row in rows)
    print(f"{len(rows)} rows in {chosen.output}; over budget: {', '.join(over) or 'none'}; budget due later: {later}")
    return 1 if over and not chosen.report_only else 0


def measured(part: str, folder: Path, quick: bool) -> list[FigureRow]:
    """Return the rows of one part; one that fails gives a row that says so, and the others go on."""
    # The disk is to be that of the working tree; sockets need a short path, and stand in the temporary folder.
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=_made(OUTPUT.parent))) if part == "commits" else folder
    try:
        return importlib.import_module(part).measure(disk, quick)
    except Exception as error:
        print(f" failed: {error}", file=sys.stderr, flush=True)
        if not isinstance(error, RuntimeError):
            traceback.print_exc()
        return [FigureRow(name=PARTS[part], value=None, unit="", binding=part in REQUIRED_PARTS)]
    finally:
        if disk != folder:
            shutil.rmtree(disk, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"measure only: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a verdict")
    parser.add_argument("--report-only", action="store_true", help="exit with 0 whatever the figures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
